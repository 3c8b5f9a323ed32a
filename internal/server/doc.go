// Package server answers HTTP: it puts routes, middleware, limits and transports around a
// [graphql.ExecutableSchema].
//
// Guarantees:
//   - Every answer has an X-Request-Id, and every GraphQL error carries the same id in
//     `extensions.requestId`, beside a `code` of the API's contract.
//   - What is not meant for clients is never sent: an error that is not in the table of errors.go is
//     INTERNAL with one fixed message, and its cause is logged under the request id.
//   - No document is validated that is longer, and none is executed that is deeper, wider or costlier, than
//     [Limits] allows; measuring takes time linear in a document's length, however often fragments are spread, and checking variables
//     in theirs, however deep they nest (TestCheckingVariablesAllocatesNothing, TestRefusingVariablesAllocatesLittle).
//   - A body is not read beyond its limit, is valid UTF-8, and is never echoed or logged.
//   - The viewer of a socket is found by the function that finds the viewer of a request, and a socket is closed with 4403, an event
//     stream ended, when the session ends that it was opened for, or the access token expires; nothing is sent or executed from then on,
//     but for what is being written to an event stream (TestASocketEndsWithItsSession, TestARevokedSocketIsDeaf,
//     TestASocketEndsWithItsAccessToken, TestEventsEndWithTheSession). Before each operation over a socket it is checked that they have not
//     (TestOperationsOverASocketAreChecked).
//   - A socket goes on with the next access token of the same user in the same role, and later operations run as that says
//     (TestASocketIsRenewed, TestASocketIsNotRenewedForSomebodyElse); where a cookie signed it in, with each refresh of the session
//     (TestRenewalOfCookies). An older token shortens nothing, and nothing is told after the end (TestRightsAreRenewed). The session that
//     is watched is the viewer's, however many renew at once (TestRenewalsAtOnce).
//   - No user has more sockets and event streams than Sockets.PerUser (TestSocketsOfAUserAreFew), and nobody at an address more than
//     Sockets.PerAddress (TestSocketsOfNobodyAreFew). No client has more waiting than Sockets.WriteBuffer and one answer
//     (TestEventsOfASlowClient, TestEndsOfASlowClient; package graphqlws), and one that takes nothing for [Sockets.DrainTimeout] is let go
//     (TestClientsThatTakeNothing, TestPiecesOfEventsHaveATimeEach); it holds up no end
//     (TestEventsThatNobodyTakesEnd). Nor does an operation that reads before it goes on (TestOperationsGoOnAside). One that was cancelled
//     counts as long as it runs (TestCancelledOperationsOfAStreamAreFew).
//   - Operations over a socket, and new access tokens, count as requests do (TestOperationsOverASocketAreCounted, TestRenewalsAreCounted).
//   - A query, a mutation, and what a subscription begins with, end after Config.OperationTimeout; a subscription that has begun goes on
//     (TestOperationsOverASocketAreBounded, TestSubscriptionsOutliveTheirBeginning). So does finding out who asks
//     (TestViewersAreKnownInTime).
//   - A reserved event stream is opened once, and its operations are of who reserved it (TestAReservedStream,
//     TestReservationsAreOfSomebody).
//   - The [viewer.Client] is in the context before anybody is asked for the viewer. Its address is the peer's, or the
//     one that trusted proxies name, never one that a client made up.
//   - Where a cookie can sign in, no request of another origin is executed that may change something, unless the
//     origin is in Config.Origins; GET never changes anything. Sockets are held to the same in any case.
//   - Pages of other origins read nothing unless they are in Config.Origins, and every answer has headers that keep
//     browsers from guessing types, framing, embedding and storing it.
//   - A query that says what it has to see, by Read-After, is answered from what has that, and by no cache; a mutation's answer says what it
//     has written, whatever became of it (TestReadAfter).
//   - The access log has no query string, no body, and no header but the request id. Each operation over a socket or an event stream has
//     a line (TestTheLogOfOperations).
//   - An operation is counted once, by whatever way it comes and however it ends (TestOperationsAreCounted, TestAPanicIsAFailure), which
//     costs no allocation (TestCountingCostsNoAllocation).
//   - /readyz says what is wrong, and is one look for all who ask within 250 ms (TestReadinessIsLookedAtOnce, TestADrainingNodeIsNotReady).
//   - A panic ends the request or the operation it happened in, and nothing else (TestAPanicOfTheExecutor, TestAPanicOverASocket); no
//     stream stays of a subscription that did not begin (TestStreamsThatDoNotBegin).
//   - [Server.Serve] lets running requests finish, for a bounded time, and returns after the last socket is
//     closed.
//
// It may import viewer, ratelimit, telemetry, graphqlws, and of record the error codes and the sinks of streams. It knows no entity and no
// generated code, so that tests drive it with a schema written by hand.
package server
