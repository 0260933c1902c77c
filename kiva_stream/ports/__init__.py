"""What the stages need of the outside, by side. Implementations belong in the adapters."""
