// Package graphqlws serves graphql-transport-ws, the protocol of GraphQL operations over WebSocket, for thousands of sockets that
// mostly wait.
//
// A [Server] upgrades requests and asks a [Handler] what to answer. An [Operation] sends its results one by one ([Operation.Send]), or is
// pushed: [Operation.Offer] and [Operation.Flush] never wait, so that one goroutine can serve all subscribers of an event.
//
// Guarantees, each with the tests that hold it:
//
//   - What the protocol does not specify for clients closes the socket with 4400 (TestInvalidMessage); 4401 (TestSubscribeBeforeAck), 4406
//     (TestSubprotocol), 4408 (TestInitTimeout), 4409 (TestExists) and 4429 (TestInitTwice) are as it says. Its predecessor, graphql-ws,
//     is not spoken.
//   - Messages of a socket are sent in the order in which they were given to it (TestBatch), and an id is sent as the client wrote it
//     (TestOperation). An `error` has no `complete` behind it; an id is free after the end of its operation (TestOperation).
//   - When a client completes an operation, whatever it is, its context ends, and nothing is sent for it but what is being written
//     (TestClientCompletes). It is told once that it has ended otherwise than by itself (TestClientCompletes, TestPushAfterTheEnd).
//   - Frames are as RFC 6455 says, in either direction and without extensions: what it forbids is refused with its code
//     (TestRefusedFrames), what it allows is understood however it is cut (TestFrames, FuzzReader), and a close is answered (TestFrames).
//   - [Conn.Close] makes a socket deaf and mute at once; a client that does not answer is cut off (TestClose, TestCloseTimeout).
//   - Every limit of [Config] is refused clearly, and none of them grows memory: TestOperations, TestMessageRate, TestUnfinishedMessage,
//     TestAllocation. A client that does not read is not read either (TestClientThatDoesNotRead).
//   - A slow client has no more than WriteBuffer waiting, holds up nobody else, loses nothing that was taken (TestSlowConsumer), and is
//     closed when it takes nothing for DrainTimeout (TestDrainTimeout). A dead one is found by two pings (TestPings).
//   - Several offers are one write (TestBatch), which allocates nothing (BenchmarkOffer).
//   - A panic of the handler ends what it happened in (TestPanic, TestInit, TestPing).
//   - No goroutine and no operation is left of a socket that ended, however it did (TestManySockets, TestAtTheSameTime, TestMain), and
//     Handler.Closed is called last and once. [Server.Shutdown] waits for that (TestShutdown), and closes many over a time
//     (TestShutdownSpread).
//
// A socket that waits is one goroutine on the smallest stack: it reads one byte without a buffer, handles what comes with a pooled one, and
// goes on waiting on a new goroutine, since a stack that decoding has grown shrinks to twice the size. With one operation that is less than
// 4.5 KiB of heap and stack, where a bare socket of github.com/coder/websocket, which would otherwise do, is 22 KiB (BenchmarkIdleSocket):
// that is why frames are read here. Connections that are not the kernel's own (TLS, wrappers) are written by a goroutine that lasts as long
// as there is something to write.
//
// It is a leaf: it imports the standard library alone.
package graphqlws
