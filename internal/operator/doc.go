// Package operator serves the pages for those who run the program: accounts and what happened to them, the nodes and how each is, and
// River's pages of jobs.
//
// Guarantees:
//   - They are for administrators alone (app.TestOperatorPagesAreForAdministrators), who sign in as everywhere, second factor included
//     (app.TestOperatorsSignInBySecondFactor). Who is signed out, demoted or locked is refused as soon as the API refuses them
//     (app.TestOperatorsAccessEnds).
//   - Nothing is changed by a page of another origin, also one that may use the API (app.TestOperatorPagesOfOtherOrigins), nor by GET.
//   - Each change leaves a security event with who did it, in the transaction of the change (app.TestOperatorsAreRecorded,
//     app.TestOperatorsJobs).
//   - Pages work without a script, but for River's, load nothing from elsewhere and are kept nowhere (app.TestOperatorPagesHeaders).
//   - What a node says of itself is a row that goes with it, and nothing waits for it (TestNodes).
//
// It may import auth, job, record and viewer; app mounts it.
package operator
