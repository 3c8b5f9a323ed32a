// Package job does work later, or again and again, on River: jobs are rows of Postgres, written in the transaction of what causes them.
//
// Guarantees:
//   - A job exists if the write that enqueued it is committed, and only then (TestEnqueueIsOfTheTransaction); outside a transaction
//     [Enqueue] is an error that says so (TestEnqueueOutsideATransaction).
//   - A job is worked at least once. One whose worker is gone, killed in the middle of it, is given to another within two minutes, however
//     long its timeout (TestAKilledWorkersJobIsWorkedAgain), and later where it has lost several (TestRescueWaitsByDeaths); one whose worker
//     lives is left alone (TestALiveWorkersJobIsLeftAlone), unless it never reached it (TestALostFetchIsMadeUpFor).
//   - Of jobs of a kind with one key, one at a time waits or runs, also where many nodes enqueue at once (TestKey).
//   - A job that fails is tried again, later each time, as often as its options say, and then kept for a look (TestRetry).
//   - A periodic job runs once a period for all nodes together, also where another takes over (TestPeriodicOnTwoNodes).
//   - At a stop, jobs end within a bounded time or go back to the queue, without the attempt being counted (TestStop).
//   - A mail in the queue is encrypted: its links are what signs people in (TestMailIsSealed).
//
// [Pages] are River's own, for whoever may see them.
//
// A job type of the application is one file of this package: the arguments, their Kind, and what Work does. See send_mail.go.
//
// It may import ent, record and mail; app starts it, and resolvers, hooks and auth enqueue.
package job
