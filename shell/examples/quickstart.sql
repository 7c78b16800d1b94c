-- A tour: eleven years of the media types registry, every release a version of one table.
--
--     cargo run --release -- -f shell/examples/quickstart.sql
--
-- It may run again: it drops its own tables first, so the versions begin anew.

CREATE SCHEMA IF NOT EXISTS media;
DROP TABLE IF EXISTS media.types;
DROP TABLE IF EXISTS media.releases;

-- A table with rules. A write that breaks one of them is refused as a whole.
CREATE TABLE media.types (
  type         TEXT NOT NULL,
  source       TEXT,
  charset      TEXT,
  compressible BOOLEAN,
  extensions   TEXT[],
  release      TEXT NOT NULL,
  released_on  DATE NOT NULL,
  CONSTRAINT has_a_slash  CHECK (type LIKE '%/%'),
  CONSTRAINT known_source CHECK (source IS NULL OR source IN ('iana', 'apache', 'nginx'))
);

-- Each load replaces the rows by the next release and is one commit. The report of each says which version it made.
INSERT OVERWRITE media.types
SELECT type, source, charset, compressible, extensions, release, CAST(released_on AS DATE)
FROM 'shell/examples/media-types/mime-db-1.0.0.json.gz';

INSERT OVERWRITE media.types
SELECT type, source, charset, compressible, extensions, release, CAST(released_on AS DATE)
FROM 'shell/examples/media-types/mime-db-1.10.0.json.gz';

INSERT OVERWRITE media.types
SELECT type, source, charset, compressible, extensions, release, CAST(released_on AS DATE)
FROM 'shell/examples/media-types/mime-db-1.20.0.json.gz';

INSERT OVERWRITE media.types
SELECT type, source, charset, compressible, extensions, release, CAST(released_on AS DATE)
FROM 'shell/examples/media-types/mime-db-1.30.0.json.gz';

INSERT OVERWRITE media.types
SELECT type, source, charset, compressible, extensions, release, CAST(released_on AS DATE)
FROM 'shell/examples/media-types/mime-db-1.40.0.json.gz';

INSERT OVERWRITE media.types
SELECT type, source, charset, compressible, extensions, release, CAST(released_on AS DATE)
FROM 'shell/examples/media-types/mime-db-1.52.0.json.gz';

INSERT OVERWRITE media.types
SELECT type, source, charset, compressible, extensions, release, CAST(released_on AS DATE)
FROM 'shell/examples/media-types/mime-db-1.54.0.json.gz';

-- Who defines the types of the newest release?
SELECT coalesce(source, 'mime-db') AS source, count(*) AS types, count(compressible) AS compressibility_known
FROM media.types
GROUP BY 1
ORDER BY types DESC;

-- Two versions of the table side by side: the first release and the newest.
SELECT 'first' AS which, release, released_on, count(*) AS types
FROM media.types VERSION AS OF 1
GROUP BY release, released_on
UNION ALL
SELECT 'newest', release, released_on, count(*)
FROM media.types
GROUP BY release, released_on
ORDER BY released_on;

-- What did the newest release change? A join of the table with its own past.
SELECT change, count(*) AS types, min(type) AS for_example
FROM (
  SELECT
    coalesce(new.type, old.type) AS type,
    CASE
      WHEN old.type IS NULL THEN 'added'
      WHEN new.type IS NULL THEN 'removed'
      WHEN new.compressible IS DISTINCT FROM old.compressible THEN 'compressible changed'
      WHEN new.source IS DISTINCT FROM old.source THEN 'source changed'
      ELSE 'same'
    END AS change
  FROM media.types VERSION AS OF 7 AS new
  FULL JOIN media.types VERSION AS OF 6 AS old ON new.type = old.type
)
GROUP BY change
ORDER BY types DESC;

-- Image types that are younger than the first release.
SELECT new.type, array_to_string(new.extensions, ', ') AS extensions, new.source
FROM media.types AS new
LEFT ANTI JOIN media.types VERSION AS OF 1 AS old ON new.type = old.type
WHERE new.type LIKE 'image/%' AND cardinality(new.extensions) > 0
ORDER BY new.type
LIMIT 12;

-- All shipped releases at once, one folder of files per release.
CREATE TABLE media.releases (
  type        TEXT NOT NULL,
  release     TEXT NOT NULL,
  released_on DATE NOT NULL
) PARTITIONED BY (release);

INSERT INTO media.releases
SELECT type, release, CAST(released_on AS DATE)
FROM 'shell/examples/media-types/*.json.gz';

SELECT release, released_on, count(*) AS types
FROM media.releases
GROUP BY release, released_on
ORDER BY released_on;

-- Everything above stays in ./lake, as Delta tables that other engines read too.
SHOW TABLES;
