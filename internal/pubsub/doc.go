// Package pubsub wakes the readers of the change log on other nodes: a hint after a commit, which says that there is something to read
// and not what. The log is the truth and reading it at intervals the guarantee; hints make the reading early.
//
// There are three ways for hints to go: [NewMemory] within a process, [NewPostgres] by LISTEN and NOTIFY, [NewRedis] by PUBLISH and
// SUBSCRIBE. What follows holds for each.
//
// Guarantees:
//   - A hint reaches every other node that is connected, in this process or another, and never comes back to its own (TestNodes,
//     TestProcesses).
//   - However many hints are given, a node sends at most one in Config.Interval. One that is given within the interval is sent at its
//     end: after the last of them, the others are woken (TestNodes, TestHintsWithinAnInterval).
//   - [Node.Notify] does not block and does not fail, whatever has become of the connection; nothing is sent in the caller's
//     transaction, or on its goroutine. What cannot be sent is sent when there is a connection again (TestNodes).
//   - [Node.Run] wakes after it connected, as hints sent before were not heard. It connects again by itself, at intervals that grow and
//     differ between nodes: where the server ends the connection, is killed, restarts, or stays silent (TestNodes, TestPostgresRestarts,
//     TestSilence, TestRetries).
//   - Run ends when its context does, whatever it waits for, and leaves nothing running (TestNodes, TestSilence).
//   - [Node.Status] says whether hints come and go, and why not (TestNodes, TestSilence).
//
// It imports nothing of ours; everybody may import it.
package pubsub
