-- Sequence: advance() again and again while there is work, in one call of the leader.
--
-- Asked from outside, every look at the inbox is a round trip: under steady traffic three of them for each event, which cost
-- the service more than all else that it does for the event. Each round here is a transaction of its own, as if the leader
-- had called advance() by itself. (Therefore it is a procedure, and has no search_path of its own: one that had could not
-- commit. The leader's connection has the feed's schema alone on its path.)
--
-- It waits `pause` seconds between rounds, or `pause_busy` after one that moved `busy` rows and more, and returns after
-- `quiet` rounds in a row without a row to move, or after `rounds` rounds. `still` is how many of the last rounds moved none,
-- and `ages` are the ages in seconds of the oldest row of each round that moved some.
CREATE PROCEDURE sequence(batch integer, busy integer, pause double precision, pause_busy double precision,
                          quiet integer, rounds integer, INOUT still integer, INOUT ages double precision[])
LANGUAGE plpgsql AS $$
DECLARE
  done record;
BEGIN
  ages := '{}';
  FOR round IN 1 .. rounds LOOP
    SELECT a.moved, a.more, extract(epoch FROM clock_timestamp() - a.oldest)::float8 AS age INTO done FROM advance(batch) a;
    COMMIT;
    IF done.moved > 0 THEN
      still := 0; ages := ages || done.age;
    ELSE
      still := still + 1;
      EXIT WHEN still >= quiet;
    END IF;
    CONTINUE WHEN done.more;
    EXIT WHEN round = rounds;
    PERFORM pg_sleep(CASE WHEN done.moved >= busy THEN pause_busy ELSE pause END);
  END LOOP;
END $$;

REVOKE ALL ON PROCEDURE sequence(integer, integer, double precision, double precision, integer, integer, integer,
  double precision[]) FROM PUBLIC;
