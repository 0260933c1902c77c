-- Version 3: which process holds a site.

-- The process of a lease, so that another one on the same host can find that it has ended. NULL where that is not known.
ALTER TABLE {schema}.lease
  ADD COLUMN boot_id    text,                 -- of the kernel that it ran on
  ADD COLUMN namespaces text,                 -- those of its pid and of its clocks
  ADD COLUMN pid        int,
  ADD COLUMN started_at bigint;               -- in clock ticks after the boot
