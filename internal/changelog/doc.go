// Package changelog reads the change log: the table `changes`, to which triggers append a row for each change of a tracked record, in
// the transaction of the change (see the first migration).
//
// What the triggers guarantee, whatever statement was run and whoever ran it:
//   - A change is in the log if and only if its transaction committed (TestRolledBackChangesAreNotThere, TestOnConflictDoNothing).
//   - Every write of a record raises its version by exactly one from 1, also where a statement names another, and by a foreign key's
//     action; a delete has the version above the last (TestHandTypedVersions, TestForeignKeyActions, TestDeleteAndInsertAgain).
//   - A row names the columns that changed and holds what they were before, but no sensitive value (TestFieldsAndOld).
//   - Linking or unlinking counts as one change of the record that owns the edge for each transaction (TestJoinOnceForEachTransaction,
//     TestJoinDeleteOfOther).
//
// What the [Tailer] guarantees its handler:
//   - Every committed change comes once, and the versions of a record come in order, however transactions overlap and whatever
//     connection is lost (TestNothingIsMissed, TestLostConnections).
//   - A batch that cannot have this property says Resync: all that was learnt from the log is void then (TestNewEpoch,
//     TestTooMuchIsResync, TestExpiredWhileAway).
//   - A change waits for no other transaction to end, and a read costs the same whatever has been written beside an open transaction
//     (TestReadIsCheapBesideAnOpenTransaction).
//   - A handler never runs twice at the same time.
//
// What a [Cursor] guarantees a reader who goes on from it, with [Since] or the next batch:
//   - Every change comes once, and the versions of a record in order, wherever the reader was cut off, however often, and on whatever
//     node it comes back (TestResume, TestSeenResumes, TestCursorOfBatch).
//   - Where that cannot be had, the answer is Resync: beyond retention (TestCursorsExpire), in another log (TestCursorsThatCannotResume),
//     on a promoted standby (TestPromotedStandby), in a restored database (TestDumpAndRestore), and for too much (TestSince).
//   - A reader of single records pays for their changes, not for what else was written; one of entities for what was written since, up
//     to its limit; both whatever the planner believes (TestSinceIsCheap).
//   - An id that is used again is no exception (TestSinceOfAnIDUsedAgain).
//   - Only a text that a [Sealer] with one of our keys has made opens (TestForgedCursors, FuzzOpen), and it stays readable
//     (TestCursorText).
//
// [History] gives the changes of a record between two versions, without a gap (TestHistory), [Later] those behind a change (TestLater).
//
// How the tailer reads: it keeps the snapshot (pg_current_snapshot) of its last read and takes the rows that are visible now and were not
// then. By sequence it would lose what commits late; up to the oldest running transaction it would wait for it.
//
// A cursor is such a snapshot, and parts of later ones by sequence (see [Seen]).
//
// It imports nothing of ours; everybody may import it.
package changelog
