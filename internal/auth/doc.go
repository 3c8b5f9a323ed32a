// Package auth knows who somebody is: accounts, passwords, tokens, sessions, the second factor, lockout and security
// events. [New] makes the [Service] that the mutations of graph/auth.graphql call, [Service.Viewer] says who asks.
//
// Guarantees, each with the tests that hold it:
//
//   - A refresh token is used up in one statement, of any number who present it at once all get the same child, and a family
//     never forks (TestRefreshRace, TestRefreshStorm, TestNoFork). An answer that was lost is given again for 30 s
//     (TestSameChild); any other reuse revokes the family, with events and a mail (TestReuse).
//   - What ends a session or changes a role ends its access tokens on this node at once and on the others as soon as they
//     read the change log, by whatever statement it was done (TestRevocationReachesOtherNodes); a node that starts, missed
//     something or is a second behind does not take them either (TestLoad, TestBehind). Who watches them is told, and where cookies
//     carry tokens of each refresh as well (TestRenewalReachesOtherNodes), outside of locks (TestWatchersAreCalledOutsideTheLock).
//   - Of any number of guesses at once no more than 10 are evaluated (TestParallelGuesses), then the account is locked, and
//     no try while it is makes that longer (TestLockout). Codes of the second factor count like passwords
//     (TestCodesAreGuarded, TestParallelCodes, TestConfirmTotpIsGuarded), those who present the right password never lock
//     themselves out (TestParallelSuccesses, TestARightPasswordIsNoFailure), and no handler sleeps. What is wrong counts
//     although it cannot be written down, or its mail cannot be queued (TestAWrongPasswordIsCounted, TestLockWithoutMail).
//   - Signing in, asking for a mail and, where addresses must be confirmed, registering say nothing of whether an account
//     exists (TestLoginSaysNothing, TestRequestsSayNothing, TestRegisterKnownAddress), and take the same statements and
//     hashes (TestTiming prints how long).
//   - A link in a mail works once, of any number at once, and only the newest (TestTokenOnce, TestResetPassword); a code and a
//     backup code too (TestCodeOnce).
//   - A sign-in that began with the old password does not end after it was changed, nor does what took it once more
//     (TestLoginOutlivesNoReset, TestThePasswordIsConfirmedAsItIs).
//   - An address is whose mailbox it is: neither who took an account over nor who registered with it keeps them from it
//     (TestTheOldestOwnerWins, TestUnprovedGivesWay, TestRevertRemovesTheirSecondFactor, TestResetRemovesTheirSecondFactor).
//   - One administrator is left, whoever deletes or demotes them, and how (TestTheLastAdministratorStays), and
//     nobody locks the last one out (TestAnAdministratorIsLeftUnlocked).
//   - Who is locked by an administrator is signed out, and signed in by nothing (TestLockUser, TestALockedUsersLinks).
//   - Passwords, tokens, codes and their secrets are stored hashed or encrypted only, and are in no log and no event.
//   - A refused mutation keeps what it leaves behind: attempts, revocations, events and mails are committed although the
//     answer is an error (TestReuse, TestLockout).
//
// It works with SQL of its own, except that users are created through ent, for the validators and hooks of their schema.
// Clients see errors of type [record.Error]; all else is internal.
//
// It may import ent, entpgx, record, viewer, changelog, mail and ratelimit. The API (graph), the program (app) and what
// measures it import it.
package auth
