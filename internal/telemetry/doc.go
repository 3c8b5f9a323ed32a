// Package telemetry counts and traces what the program does: [Metrics] for Prometheus, a [Tracer] for OpenTelemetry.
//
// Both may be nil, which is how they are off: every method does nothing then.
//
// Guarantees:
//   - What is off costs nothing: no allocation, no context, no span (TestOffCostsNothing). Counting allocates nothing either
//     (TestCountingAllocatesNothing).
//   - Nobody outside can make more time series: a label has as many values as the program has routes, methods, statuses and codes, and
//     names of operations are the first [MostNames] of each node, then "(other)" (TestNamesOfOperationsAreFew, TestLabelsAreFew).
//   - A trace has statements as they were prepared, never a value, and of an error of Postgres its code, never its text
//     (TestStatementsHaveNoValues).
//   - A client decides nothing: a traceparent is a parent only where it comes by a trusted proxy, and a link otherwise
//     (TestWhoMayBeTheParent).
//   - Work that nobody traces, as reading the change log, makes no span (TestStatementsOfNoTrace).
//   - An exporter that fails holds up nothing and is logged (TestACollectorThatFails).
//
// It is a leaf: it imports nothing of ours.
package telemetry
