// Package auth knows who somebody is: passwords, tokens, sessions, the second factor, lockout and security events.
//
// It imports viewer, record (errors and ids), mail and ratelimit, and pgx. The API (graph), the server and the
// program (app) import it.
package auth
