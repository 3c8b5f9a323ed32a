package migrations

// UpWith and StatusWith let the tests, which have to be outside the package as dbtest imports it, bring files of their own.
var (
	UpWith     = up
	StatusWith = status
)
