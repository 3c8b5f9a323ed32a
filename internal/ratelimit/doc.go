// Package ratelimit says how often something may happen: on one node, or on all nodes of a cluster together.
//
// [Postgres] and [Redis] keep what was granted where all nodes see it; [PerAddress] stands before one of them on the
// hot path and asks it once in many requests.
//
// Guarantees:
//   - A store grants a key at most Limit.Quota at once, and from then on one each Limit.Window / Limit.Quota, however
//     many nodes and goroutines ask at the same time. (This is GCRA, a leaky bucket. So any span of one Window sees
//     less than twice the Quota, and a long one the Quota a Window.)
//   - A take is one statement, or one script, on the store's own clock: nodes whose clocks differ agree.
//   - What is refused uses nothing up: whoever keeps asking waits no longer. RetryAfter is when a take is granted, if
//     nobody else takes it first.
//   - Storage is bounded by the keys of one Window: what has expired is removed by Redis, or, in Postgres, by later
//     takes, faster than takes can add to it.
//   - A store that fails says so by an error, and grants nothing. [PerAddress] grants everything then, and logs it.
//
// It is a leaf: it imports nothing of ours.
package ratelimit
