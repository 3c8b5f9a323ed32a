// Package entpgx runs ent on a pgxpool, without database/sql between them.
//
// Open gives ent's driver, Driver.Begin a transaction that serves ent, hand-written SQL and every library that takes a
// pgx.Tx alike, WithSetting a transaction-local setting for whatever runs with a context, WithChecks statements before and
// after one that undo it by failing, and UpdateOne ent's update of one record as one statement.
//
// Guarantees, each with the tests that hold it:
//
//   - What ent reads and writes, and the errors it recognises, are the same as over database/sql and pgx/stdlib
//     (TestConformance, one suite over both; TestScanLikeDatabaseSQL).
//   - A transaction takes no connection before its first statement, and BEGIN, its settings and that statement are one
//     network round trip (TestTxIsLazy, TestTxBeginsInOneRoundTrip).
//   - ent and SQL on one transaction commit and roll back together (TestTxIsShared).
//   - Several goroutines may use one transaction at once; statements take turns (TestTxConcurrentReads).
//   - Commit never hides that a transaction was aborted or never began (TestTxCommitOfAborted, TestTxThatCannotBegin).
//   - Rollback works although the context was cancelled, and the connection always goes back to the pool
//     (TestTxRollbackAfterCancel, TestTxRollbackWhileBusy).
//   - A setting is sent in the statement's own round trip and never outlives it on the connection
//     (TestSettingIsLocal, TestSettingIsOneRoundTrip); what fails only at the implicit commit is reported
//     (TestSettingReportsCommitError).
//   - A statement and its checks are done together or not at all, in one round trip (TestChecks, TestChecksAreOneRoundTrip),
//     and what the checks answer can be had (TestAnswersOfChecks); a Tx ignores checks (TestTxIgnoresChecks).
//   - A cancelled statement returns an error that is context.Canceled and leaves the pool healthy (TestConformance/cancel).
//   - UpdateOne gives ent's own result in one statement for every update that UpdateFits accepts (TestUpdateOne).
//
// Limits:
//
//   - The first statement of a Tx, and those sent with settings or checks, are single statements, as everywhere in the extended
//     protocol.
//   - A goroutine that holds rows of a Tx open must not run another statement on it.
//   - ent's Schema.Create needs database/sql and is refused with ErrSchemaCreate (TestSchemaCreate).
//   - ent's sql.WithVar has no effect; WithSetting is for that.
//   - ColumnTypes is not available, so selected columns that ent does not know come as database/sql's plain values: a
//     numeric is a string.
//   - A sql.Scanner on a range column gets pgx's binary form; pgtype.Range is for those.
//
// The package imports ent's runtime and pgx, and nothing of ours.
package entpgx
