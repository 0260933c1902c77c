-- The state schema at version 2, as kiva_stream 0.1.0 left it in the middle of a generated history (pg_dump --inserts),
-- with a row in each of the tables that this history left empty.
CREATE SCHEMA kiva_stream;
CREATE FUNCTION kiva_stream.numbered(number bigint, last bigint) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
BEGIN
  IF number <> last + 1 THEN
    RAISE EXCEPTION 'commit % comes after commit %', number, last USING ERRCODE = 'KS002';
  END IF;
  RETURN number;
END $$;
CREATE FUNCTION kiva_stream.renew(site integer, mine bigint, for_s double precision) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
DECLARE
  renewed int;
BEGIN
  UPDATE "kiva_stream".lease SET expires_at = clock_timestamp() + make_interval(secs => for_s)
  WHERE site_id = site AND epoch = mine;
  GET DIAGNOSTICS renewed = ROW_COUNT;
  IF renewed < 2 THEN
    RAISE EXCEPTION 'another process has taken site % or its account', site USING ERRCODE = 'KS001';
  END IF;
  RETURN true;
END $$;
CREATE TABLE kiva_stream.checkpoint (
    site_id integer NOT NULL,
    since text NOT NULL,
    events_since timestamp with time zone,
    counted_txid bigint NOT NULL,
    counted_id bigint NOT NULL,
    watermark_txid bigint NOT NULL,
    watermark_id bigint NOT NULL,
    pending bigint DEFAULT 0 NOT NULL,
    ahead jsonb DEFAULT '[]'::jsonb NOT NULL,
    high_txid bigint,
    high_id bigint,
    entries bigint,
    phase text DEFAULT 'contacts'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    committed_at timestamp with time zone DEFAULT now() NOT NULL,
    caught_up_at timestamp with time zone,
    commits bigint DEFAULT 0 NOT NULL,
    out_txids bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    out_ids bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    horizon boolean DEFAULT true NOT NULL,
    forgotten_txid bigint,
    forgotten_id bigint,
    CONSTRAINT checkpoint_phase_check CHECK ((phase = ANY (ARRAY['contacts'::text, 'orders'::text, 'events'::text, 'tags'::text, 'done'::text, 'sweep'::text, 'follow'::text])))
);
CREATE TABLE kiva_stream.contact (
    id bigint NOT NULL,
    site_id integer NOT NULL,
    email text NOT NULL,
    status text DEFAULT 'new'::text NOT NULL,
    why text DEFAULT ''::text NOT NULL,
    fingerprint bytea,
    confirmed_at timestamp with time zone,
    ac_id bigint,
    tag text,
    tag_link bigint,
    unsubscribed boolean DEFAULT false NOT NULL,
    erased_at timestamp with time zone,
    CONSTRAINT contact_status_check CHECK ((status = ANY (ARRAY['new'::text, 'linked'::text, 'rejected'::text])))
);
ALTER TABLE kiva_stream.contact ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME kiva_stream.contact_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE kiva_stream.customer (
    site_id integer NOT NULL,
    customer_id bigint NOT NULL,
    contact_id bigint NOT NULL
);
CREATE TABLE kiva_stream.site (
    site_id integer NOT NULL,
    account text NOT NULL,
    contact_url text,
    week_start date,
    known_to bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    hash_key bytea
);
CREATE VIEW kiva_stream.contacts AS
 SELECT l.site_id,
    l.customer_id,
    c.email,
    c.ac_id AS ac_contact_id,
    (s.contact_url || c.ac_id) AS ac_contact_url,
    c.confirmed_at AS last_synced_at
   FROM ((kiva_stream.customer l
     JOIN kiva_stream.contact c ON ((c.id = l.contact_id)))
     LEFT JOIN kiva_stream.site s ON ((s.site_id = l.site_id)))
  WHERE (c.status = 'linked'::text);
CREATE TABLE kiva_stream.dead_letter (
    site_id integer NOT NULL,
    txid bigint NOT NULL,
    log_id bigint NOT NULL,
    reason text NOT NULL,
    customer_id bigint,
    attempts smallint NOT NULL,
    reply text DEFAULT ''::text NOT NULL,
    died_at timestamp with time zone DEFAULT now() NOT NULL,
    replay_at timestamp with time zone,
    discarded_at timestamp with time zone
);
CREATE TABLE kiva_stream.gap (
    site_id integer NOT NULL,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE kiva_stream.import (
    site_id integer NOT NULL,
    id text NOT NULL,
    contact_ids bigint[] NOT NULL,
    fingerprints bytea[] NOT NULL,
    unsubscribed boolean[] NOT NULL,
    is_short boolean NOT NULL,
    accepted_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE kiva_stream.lease (
    name text NOT NULL,
    site_id integer NOT NULL,
    epoch bigint NOT NULL,
    holder text NOT NULL,
    taken_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL
);
CREATE TABLE kiva_stream.ledger (
    site_id integer NOT NULL,
    txid bigint NOT NULL,
    log_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    event smallint NOT NULL,
    attempts smallint NOT NULL,
    delivered_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE kiva_stream.parked (
    site_id integer NOT NULL,
    txid bigint NOT NULL,
    log_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    parked_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE kiva_stream.sent_order (
    site_id integer NOT NULL,
    order_id bigint NOT NULL,
    source text NOT NULL,
    fingerprint bytea NOT NULL,
    refused text DEFAULT ''::text NOT NULL,
    accepted_at timestamp with time zone NOT NULL,
    discarded_at timestamp with time zone,
    CONSTRAINT sent_order_source_check CHECK ((source = ANY (ARRAY['HISTORICAL'::text, 'REAL_TIME'::text])))
);
CREATE TABLE kiva_stream.tag_due (
    site_id integer NOT NULL,
    contact_id bigint NOT NULL,
    mark bigint NOT NULL
);
ALTER TABLE kiva_stream.tag_due ALTER COLUMN mark ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME kiva_stream.tag_due_mark_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE kiva_stream.tally (
    site_id integer NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    count bigint NOT NULL,
    CONSTRAINT tally_kind_check CHECK ((kind = ANY (ARRAY['outcome'::text, 'event'::text, 'note'::text, 'contact'::text, 'order'::text])))
);
CREATE TABLE kiva_stream.tombstone (
    site_id integer NOT NULL,
    customer_id bigint NOT NULL,
    address_hash bytea,
    forgotten_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE kiva_stream.trouble (
    site_id integer NOT NULL,
    kind text NOT NULL,
    since timestamp with time zone NOT NULL,
    why text NOT NULL
);
CREATE TABLE kiva_stream.version (
    version integer NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);
INSERT INTO kiva_stream.checkpoint VALUES
	(1, 'day1', NULL, 0, 0, 790, 161, 0, '[]', 790, 161, 150, 'done', '2026-11-30 15:58:09.796776+00', '2026-11-30 15:58:15.016272+00', NULL, 4, '{791}', '{163}', true, NULL, NULL);
INSERT INTO kiva_stream.contact OVERRIDING SYSTEM VALUE VALUES
	(1, 1, 'olivia.baker0@example.com', 'linked', '', '\xb2343175aa2f26eeb6c142cf85dd7823', '2026-11-30 15:58:14.816823+00', 1, 'no order', NULL, false, NULL),
	(2, 1, 'olivia.clark1@example.net', 'linked', '', '\xd856e9c65576b5691b84bf27e6e53042', '2026-11-30 15:58:14.816823+00', 2, 'open order', NULL, false, NULL),
	(3, 1, 'bill.roberts2@example.org', 'linked', '', '\x7fb223451f14f7f18253c620cfb29df5', '2026-11-30 15:58:14.816823+00', 3, 'no order', NULL, false, NULL),
	(4, 1, 'zoe.moore3@mail.example.com', 'linked', '', '\xfd419e09f0081cc8af81e730dff4e18d', '2026-11-30 15:58:14.816823+00', 4, 'no order', NULL, false, NULL),
	(5, 1, 'olivia.brown4@example.com', 'linked', '', '\x404fc993192d76ff616f1317b0e89915', '2026-11-30 15:58:14.816823+00', 5, 'no order', NULL, false, NULL),
	(6, 1, 'dora.carter5@example.net', 'linked', '', '\x278a8c64b98346ad2b3be4c2b720bb68', '2026-11-30 15:58:14.816823+00', 6, 'no order', NULL, false, NULL);
INSERT INTO kiva_stream.customer VALUES
	(1, 1001, 1),
	(1, 1002, 2),
	(1, 1003, 3),
	(1, 1004, 4),
	(1, 1005, 5),
	(1, 1006, 6);
INSERT INTO kiva_stream.dead_letter VALUES
	(1, 734, 2, 'no_contact', 7, 0, '', '2026-11-30 12:00:00+00', NULL, NULL),
	(1, 735, 3, 'event_rejected', 8, 3, 'refused', '2026-11-30 12:00:00+00', '2026-11-30 12:05:00+00', NULL),
	(1, 736, 4, 'no_email', 9, 0, '', '2026-11-30 12:00:00+00', NULL, '2026-11-30 12:06:00+00');
INSERT INTO kiva_stream.gap VALUES
	(1, 3, 4, '2026-11-30 12:00:00+00');
INSERT INTO kiva_stream.import VALUES
	(1, 'import-1', '{1}', '{"\\x01"}', '{f}', false, '2026-11-30 12:00:00+00');
INSERT INTO kiva_stream.lease VALUES
	('account account.example 307539101', 1, 1, 'host pid 1', '2026-11-30 15:58:08.785892+00', '2026-11-30 15:58:15.020667+00'),
	('site 1', 1, 1, 'host pid 1', '2026-11-30 15:58:08.78598+00', '2026-11-30 15:58:15.020674+00');
INSERT INTO kiva_stream.ledger VALUES
	(1, 734, 2, 4, 2, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 737, 5, 3, 8, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 738, 9, 1, 41, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 745, 18, 2, 6, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 778, 118, 5, 12, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 783, 131, 6, 2, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 738, 7, 4, 5, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 737, 6, 3, 10, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 741, 10, 1, 1, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 745, 19, 2, 8, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 783, 135, 6, 4, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 744, 16, 4, 4, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 748, 23, 3, 5, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 745, 21, 1, 41, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 745, 20, 2, 10, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 790, 150, 6, 5, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 760, 56, 4, 1, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 755, 42, 3, 5, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 748, 24, 1, 1, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 755, 41, 2, 1, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 790, 151, 6, 3, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 756, 48, 3, 29, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 751, 34, 1, 10, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 766, 71, 2, 1, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 790, 154, 6, 32, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 761, 63, 4, 5, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 757, 52, 3, 8, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 751, 35, 1, 17, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 771, 93, 2, 1, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 766, 74, 4, 9, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 757, 53, 3, 10, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 751, 36, 1, 8, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 774, 96, 2, 41, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 771, 95, 4, 4, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 760, 57, 3, 4, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 751, 37, 1, 11, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 775, 105, 2, 6, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 782, 127, 4, 10, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 761, 61, 3, 6, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 751, 39, 1, 41, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 778, 110, 2, 5, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 782, 128, 4, 8, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 761, 62, 3, 41, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 756, 45, 1, 15, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 778, 111, 2, 17, 1, '2026-11-30 15:58:14.960106+00'),
	(1, 766, 76, 3, 5, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 757, 54, 1, 41, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 778, 113, 2, 11, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 766, 77, 3, 19, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 762, 65, 1, 10, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 778, 114, 2, 10, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 769, 83, 3, 8, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 762, 66, 1, 8, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 778, 115, 2, 8, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 769, 84, 3, 10, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 766, 81, 1, 41, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 782, 124, 2, 41, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 774, 103, 3, 1, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 774, 99, 1, 8, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 782, 125, 2, 1, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 783, 133, 3, 41, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 774, 100, 1, 10, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 783, 132, 2, 5, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 783, 134, 3, 1, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 774, 102, 1, 5, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 790, 143, 2, 41, 1, '2026-11-30 15:58:14.982726+00'),
	(1, 775, 107, 1, 41, 1, '2026-11-30 15:58:15.006548+00'),
	(1, 790, 144, 2, 1, 1, '2026-11-30 15:58:15.006548+00'),
	(1, 786, 137, 1, 10, 1, '2026-11-30 15:58:15.006548+00'),
	(1, 790, 152, 2, 15, 1, '2026-11-30 15:58:15.006548+00'),
	(1, 786, 138, 1, 8, 1, '2026-11-30 15:58:15.006548+00'),
	(1, 790, 153, 2, 14, 1, '2026-11-30 15:58:15.006548+00'),
	(1, 790, 160, 1, 23, 1, '2026-11-30 15:58:15.006548+00'),
	(1, 790, 155, 2, 13, 1, '2026-11-30 15:58:15.006548+00'),
	(1, 790, 161, 1, 30, 1, '2026-11-30 15:58:15.006548+00');
INSERT INTO kiva_stream.parked VALUES
	(1, 734, 1, 1, '2026-11-30 12:00:00+00');
INSERT INTO kiva_stream.sent_order VALUES
	(1, 100004, 'HISTORICAL', '\xd9a5f97aef27ba35e945dfd494b78b28', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100007, 'HISTORICAL', '\x227eddb90f0f927667271ea0b2627d77', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100010, 'HISTORICAL', '\xc0b116b381f18434b69ad5d9022bda57', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100016, 'HISTORICAL', '\x4234a7c1e4b85535828f480648f76f45', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100018, 'HISTORICAL', '\x427ca8889cc77b910c5581478ea4872b', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100023, 'HISTORICAL', '\x7d7cab0ce1436e7c510c765a5e25c4f9', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100025, 'HISTORICAL', '\x8bb4ce315ee524a89c6ff85177c8d98a', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100027, 'HISTORICAL', '\x11796dcc4b363528cc5416a986b15adf', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100028, 'HISTORICAL', '\x794c11faebd01749851de0bb1ac40d0d', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100030, 'HISTORICAL', '\x5e4ff32fe7c553f0ab022310ea600ad0', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100033, 'HISTORICAL', '\x6db7760a8174820b590c2178f0fe4ff7', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100037, 'HISTORICAL', '\x6f92065658cdc15c9e72846d63b33abd', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100038, 'HISTORICAL', '\xe2a20e38e3937726137039518a696a80', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100039, 'HISTORICAL', '\x4ccfc77101df8811c6d9406a8a33d693', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100040, 'HISTORICAL', '\x70716f42d382c2d9b3d5b77430d9887b', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100043, 'HISTORICAL', '\xae30c4c2e06c75f9b8ce912c64d18824', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100044, 'HISTORICAL', '\x5e7c53df4086361c3ceddc856b939cbc', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100046, 'HISTORICAL', '\x6cd4cad8b2d9f37a0c75613c8ef978be', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100053, 'HISTORICAL', '\x89f06e79bff313adcf7eab752ce4411b', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100054, 'HISTORICAL', '\xe8d3bad618bd46f87650facb36198661', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100055, 'HISTORICAL', '\x4dde9f8ee54b5de9fb5f99141757083b', '', '2026-11-30 15:58:14.878183+00', NULL),
	(1, 100001, 'HISTORICAL', '\xaa0eca2dc952b606c50c57cb1b8094c9', 'too old', '2026-11-30 15:58:14.878183+00', NULL);
INSERT INTO kiva_stream.site VALUES
	(1, 'account.example 307539101', 'https://account.example/app/contacts/', '2026-09-07', 6, '2026-11-30 15:58:09.795518+00', '\x03');
INSERT INTO kiva_stream.tag_due OVERRIDING SYSTEM VALUE VALUES
	(1, 1, 31);
INSERT INTO kiva_stream.tally VALUES
	(1, 'note', 'stale_next_delivery', 4),
	(1, 'order', 'sent', 22),
	(1, 'event', '1', 10),
	(1, 'event', '10', 10),
	(1, 'event', '11', 2),
	(1, 'event', '12', 1),
	(1, 'event', '13', 1),
	(1, 'event', '14', 1),
	(1, 'event', '15', 2),
	(1, 'event', '17', 2),
	(1, 'event', '19', 1),
	(1, 'event', '2', 2),
	(1, 'event', '23', 1),
	(1, 'event', '29', 1),
	(1, 'event', '3', 1),
	(1, 'event', '30', 1),
	(1, 'event', '32', 1),
	(1, 'event', '4', 4),
	(1, 'event', '41', 11),
	(1, 'event', '5', 9),
	(1, 'event', '6', 3),
	(1, 'event', '8', 10),
	(1, 'event', '9', 1),
	(1, 'note', 'unknown_text', 59),
	(1, 'outcome', 'delivered', 75),
	(1, 'outcome', 'skipped noise', 68),
	(1, 'outcome', 'synced', 7),
	(1, 'contact', 'linked', 6),
	(1, 'contact', 'new', 0),
	(1, 'contact', 'rejected', 0),
	(1, 'outcome', 'dead no_contact', 1),
	(1, 'outcome', 'dead event_rejected', 1),
	(1, 'outcome', 'dead no_email', 1);
INSERT INTO kiva_stream.tombstone VALUES
	(1, 77, '\x02', '2026-11-30 12:00:00+00');
INSERT INTO kiva_stream.trouble VALUES
	(1, 'key', '2026-11-30 12:00:00+00', 'the key is refused');
INSERT INTO kiva_stream.version VALUES
	(1, '2026-11-30 15:57:53.422217+00'),
	(2, '2026-11-30 15:57:53.422217+00');
SELECT pg_catalog.setval('kiva_stream.contact_id_seq', 6, true);
SELECT pg_catalog.setval('kiva_stream.tag_due_mark_seq', 31, true);
ALTER TABLE ONLY kiva_stream.checkpoint
    ADD CONSTRAINT checkpoint_pkey PRIMARY KEY (site_id);
ALTER TABLE ONLY kiva_stream.contact
    ADD CONSTRAINT contact_pkey PRIMARY KEY (id);
ALTER TABLE ONLY kiva_stream.contact
    ADD CONSTRAINT contact_site_id_email_key UNIQUE (site_id, email);
ALTER TABLE ONLY kiva_stream.customer
    ADD CONSTRAINT customer_pkey PRIMARY KEY (site_id, customer_id);
ALTER TABLE ONLY kiva_stream.dead_letter
    ADD CONSTRAINT dead_letter_pkey PRIMARY KEY (site_id, txid, log_id);
ALTER TABLE ONLY kiva_stream.gap
    ADD CONSTRAINT gap_pkey PRIMARY KEY (site_id, first_id);
ALTER TABLE ONLY kiva_stream.import
    ADD CONSTRAINT import_pkey PRIMARY KEY (site_id, id);
ALTER TABLE ONLY kiva_stream.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (name);
ALTER TABLE ONLY kiva_stream.ledger
    ADD CONSTRAINT ledger_pkey PRIMARY KEY (site_id, txid, log_id);
ALTER TABLE ONLY kiva_stream.parked
    ADD CONSTRAINT parked_pkey PRIMARY KEY (site_id, txid, log_id);
ALTER TABLE ONLY kiva_stream.sent_order
    ADD CONSTRAINT sent_order_pkey PRIMARY KEY (site_id, order_id);
ALTER TABLE ONLY kiva_stream.site
    ADD CONSTRAINT site_account_key UNIQUE (account);
ALTER TABLE ONLY kiva_stream.site
    ADD CONSTRAINT site_pkey PRIMARY KEY (site_id);
ALTER TABLE ONLY kiva_stream.tag_due
    ADD CONSTRAINT tag_due_pkey PRIMARY KEY (site_id, contact_id);
ALTER TABLE ONLY kiva_stream.tally
    ADD CONSTRAINT tally_pkey PRIMARY KEY (site_id, kind, name);
ALTER TABLE ONLY kiva_stream.tombstone
    ADD CONSTRAINT tombstone_pkey PRIMARY KEY (site_id, customer_id);
ALTER TABLE ONLY kiva_stream.trouble
    ADD CONSTRAINT trouble_pkey PRIMARY KEY (site_id, kind);
ALTER TABLE ONLY kiva_stream.version
    ADD CONSTRAINT version_pkey PRIMARY KEY (version);
CREATE INDEX contact_erased ON kiva_stream.contact USING btree (site_id) WHERE (erased_at IS NOT NULL);
CREATE INDEX customer_contact ON kiva_stream.customer USING btree (contact_id);
CREATE INDEX dead_letter_asked ON kiva_stream.dead_letter USING btree (site_id, txid, log_id) WHERE (replay_at IS NOT NULL);
CREATE INDEX dead_letter_customer ON kiva_stream.dead_letter USING btree (site_id, customer_id);
CREATE INDEX dead_letter_reason ON kiva_stream.dead_letter USING btree (site_id, reason);
CREATE INDEX ledger_age ON kiva_stream.ledger USING brin (delivered_at);
CREATE INDEX sent_order_refused ON kiva_stream.sent_order USING btree (site_id, order_id) WHERE (refused <> ''::text);
CREATE INDEX tombstone_address ON kiva_stream.tombstone USING btree (site_id, address_hash);
ALTER TABLE ONLY kiva_stream.checkpoint
    ADD CONSTRAINT checkpoint_site_id_fkey FOREIGN KEY (site_id) REFERENCES kiva_stream.site(site_id);
ALTER TABLE ONLY kiva_stream.customer
    ADD CONSTRAINT customer_contact_id_fkey FOREIGN KEY (contact_id) REFERENCES kiva_stream.contact(id);
ALTER TABLE ONLY kiva_stream.tag_due
    ADD CONSTRAINT tag_due_contact_id_fkey FOREIGN KEY (contact_id) REFERENCES kiva_stream.contact(id);
ALTER TABLE ONLY kiva_stream.tally
    ADD CONSTRAINT tally_site_id_fkey FOREIGN KEY (site_id) REFERENCES kiva_stream.site(site_id);
