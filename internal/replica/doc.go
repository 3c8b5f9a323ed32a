// Package replica knows how far a standby of the database is, so that who has seen something on the primary is never shown what was
// before it: [Position] is a place in the log, [Replica] a standby that is looked at.
//
// Guarantees:
//   - A server whose position, by [Here], covers a client's shows all that the client has seen or written; texts of positions compare as
//     positions do (TestPositions, TestStandby). Where that cannot be told, the position is one that no server reaches (TestSilentPrimary).
//   - A standby that is away, that does not answer within a second, or of which positions do not tell, as it belongs to another cluster
//     or its transactions have one snapshot, is not used, and what reads there is cancelled; when it is back it is used again
//     (TestStandby, TestSilentStandby, TestAnotherCluster, TestOneSnapshot).
//   - What is read is at most twice Config.MaxLag old, while the primary can be asked (TestLag).
//   - After a promotion, standbys that have not followed are not used, by nodes that have heard of it from the primary (TestPromotion). Nor
//     is one that is promoted while the primary goes on (TestPromotedAlone).
//   - An address that leads to the primary is used, and left when it leads to a standby (TestPrimaryAsStandby).
//
// It imports nothing of ours; package record and what is above it may import it.
package replica
