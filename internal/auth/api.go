package auth

import (
	"time"

	"godstack/internal/record"
	"godstack/internal/viewer"
)

// MutationFields are the mutations of this package. Each commits by itself: what a refused one leaves behind (an attempt,
// a revocation, an event, a mail) stays although it answers with an error.
var MutationFields = []string{
	"register", "login", "refresh", "logout", "logoutEverywhere", "revokeSession",
	"requestEmailVerification", "verifyEmail", "requestPasswordReset", "resetPassword", "changePassword",
	"changeEmail", "revertEmail", "enrollTotp", "confirmTotp", "disableTotp", "lockUser", "unlockUser", "resetTwoFactor", "setRole",
}

// PublicFields are those of them that nobody need be signed in for. A transport has to let an operation of these alone
// through although [Service.Viewer] refuses its access token: an expired one is what refresh is for.
var PublicFields = []string{
	"register", "login", "refresh", "logout",
	"requestEmailVerification", "verifyEmail", "requestPasswordReset", "resetPassword", "revertEmail",
}

// PartingFields are those that end sessions. They wait for nobody, and have connections of their own, so that who is in danger can sign out
// whatever the load.
var PartingFields = []string{"logout", "logoutEverywhere", "revokeSession"}

// PasswordFields are those that hash a password.
var PasswordFields = []string{"register", "login", "resetPassword", "changePassword", "changeEmail", "enrollTotp", "disableTotp"}

// RegisterInput is what a new account is made of.
type RegisterInput struct {
	Email, Username, Name, Password string
}

// LoginInput is what somebody presents to sign in.
type LoginInput struct {
	Login    string // mail address or user name
	Password string
	Code     *string // of the second factor, or a backup code
}

// Payload is what a sign-in gives. All of it is empty where the address has to be confirmed first.
type Payload struct {
	AccessToken  *string        // nil where only cookies carry tokens
	RefreshToken *string        // likewise
	ExpiresAt    *time.Time     // of the access token
	Viewer       *viewer.Viewer // who is signed in now
}

// Session is a sign-in on a device, as its user sees it.
type Session struct {
	ID         record.ID
	CreatedAt  time.Time
	LastUsedAt time.Time
	ExpiresAt  time.Time
	Address    string
	UserAgent  string
	Current    bool // it is the one that asks
}

// TotpEnrollment is what an authenticator needs to know.
type TotpEnrollment struct {
	Secret string // in base32, to be typed
	URI    string // otpauth, mostly shown as a QR code
}
