// Package record is the runtime under the generated resolvers: reading, listing, creating, updating, deleting and
// watching records of any entity, from the entity's description ([Entity]) and the few functions that generated
// code supplies for it ([Model]).
//
// What writes guarantee:
//
//   - of any number of writers with one expected version exactly one wins (TestOneWriterWins), and no
//     acknowledged write is lost (TestNoLostUpdate);
//   - a write that loses answers CONFLICT with the record as a query answers it now, and the fields that changed
//     since (TestConflict, TestConflictOfAUser); it costs a write that wins nothing (TestStatements);
//   - links count as one change of the record that has the edge (TestMembers);
//   - a create, an update or a delete of one record is one round trip (TestStatementsOfWrites);
//   - all entity mutations of one operation commit together or not at all, whatever fails
//     (TestOperationIsOneTransaction, TestEveryFailureOfARootFieldRollsBack, TestALostConnectionIsUnavailable), what
//     fails in the selection of an answer undoes nothing (TestAnErrorInTheSelectionRollsNothingBack), and the answer
//     leaves after COMMIT (TestTheAnswerLeavesAfterCommit);
//   - hooks of the ent client are part of the write's transaction (TestHooks);
//   - the change log names who wrote, and a connection forgets it at once (TestTheActorIsLogged);
//   - a deadlock, a serialization failure, or a selection whose statement fails in a transaction is UNAVAILABLE, with the
//     time to try again, and nothing is written (TestAWriteInTheWayIsUnavailable, TestASelectionThatAbortsTheTransaction).
//
// A mutation with an idempotency key
//
//   - has one effect, and one answer to all who send it, at once or later, whichever node is asked, and though one is killed before it answers
//     (TestAKeyHasOneEffect, TestKeysAtOnce, TestDuplicatesWaitForTheFirst, app.TestAKeyOnTwoNodesAtOnce, godstack.TestKilledBeforeTheAnswer);
//   - is told to try again where nobody knows what became of it, or where it would wait for long (TestDuplicatesThatMayNotWait,
//     TestAKeyIsNotWaitedForForever), and leaves nothing where it failed (TestAFailureStoresNoKey, TestTheNextTakesThePlaceOfAFailure);
//   - holds no connection while it waits on its node (TestWhoWaitsForAKeyHoldsNoConnection), no key when its node has vanished
//     (TestAVanishedNodeLeavesItsKeys), and no more than is allowed (TestAnswersThatAreTooLongToKeep);
//   - shows nothing again that may not be read any more (TestReplayedAnswersObeyTheRules, TestReplayOfWhatOneHasWritten, TestPayloadsByHand);
//   - is of one request, one user and one day (TestAKeyIsOfOneRequest, TestKeysThatAreRefused, TestKeysExpire, TestPurgeKeys);
//   - costs those without a key nothing (TestNoKeyCostsNothing, TestStatementsOfWrites).
//
// What reads guarantee:
//
//   - the number of statements does not depend on the number of records (TestNoStatementForEachRecord), and
//     testdata/statements.golden shows them (TestStatements);
//   - turning the pages of a list, in any order and either direction, gives what one page would, nulls and extreme
//     values included (TestPagesAddUp, TestPagesAddUpWithNulls);
//   - an answer has what is selected, in that order (TestSelections), and an error its place (TestErrorsHavePlaces);
//   - times are in UTC, and what a write answers is what a read gives (TestWrite).
//
// Where there is a standby, a query that asks for it reads there, and sees all that its client has seen (app.TestReadReplica); what fails
// there is read on the primary (app.TestQueryThatFailsOnTheStandby).
//
// What a client sends is never INTERNAL: wrong input says which field, and too much of it is TOO_COMPLEX (TestBadInput,
// TestBadBodies, TestRefusedWrites).
//
// A stale update that asks for it overwrites nothing that others changed to something else, and obeys the rules as they are now (TestMerge,
// TestMergeOfLinks, TestMergeOfTheSameValue, TestMergeBeyondRetention, TestMergeObeysRules); any number of writers with fields of their own
// all succeed (TestManyMerge, TestManyMergeLinks); without a conflict it costs nothing (TestStatementsOfMerges).
//
// What a subscription guarantees, to a record, to some that are named, or to a list:
//
//   - it starts with a snapshot, or READY where the client's version is current (TestWatchWhatIsKnown), then gives each
//     later version once, in order, whoever wrote it by whatever means (TestWatch, TestWatchInAStorm, TestSubscribeInAStorm);
//   - records are created, updated and deleted in a list as they enter, change and leave it (TestList), and its filter means what the
//     same does in a query (TestMatchHoldsAsTheDatabaseSays);
//   - who comes back with a cursor, from anywhere, goes on as if never away, or is told RESYNC (TestResume, TestResumeFromNowhere,
//     TestCutsInAStorm);
//   - nobody is sent what they may not read, nor told of it (TestRightsInLists, TestRightsAreOfWhatIsTold, TestCutInACascade);
//   - whatever writers, clients and rights do, what clients hold in the end is what a query answers them (TestClientsAreRight);
//   - only a subscriber that falls behind by hundreds of events is given some joined into one, with all their fields
//     (TestSlowSubscriber, TestConflate, TestConflateFromAnywhere);
//   - where changes may have been missed it says RESYNC and starts again (TestWatchAfterTruncate,
//     TestWatchAfterANewEpoch);
//   - one that cannot go on says so, and does not end as after DELETED (TestWatchThatFails);
//   - what takes long to read for one delays no other, nor who makes room for it (TestCostlyStreamsHoldUpNobody, TestResumeReadsNothing,
//     TestRestartsTakeTurns, TestRestartsThatWaitForTheirTurnStay, TestTurnsEnd, TestToldAsRead);
//   - what streams hold is bounded (TestMemoryIsBounded, TestMemoryOfManyAtOnce, TestFlipsAreBounded);
//   - a change is read once for all subscribers, and rendered once for all who see the same (TestWatchersShareTheRecord,
//     TestNoFilteredAnswerIsAnothers), and who leaves is forgotten (TestWatchersThatLeave, TestClosedStreamsFollowNothing).
//
// It may import viewer, entity, entpgx, changelog and replica; generated code and everything above imports it. It never
// imports the generated ent package.
package record
