package graph

import (
	"context"

	"godstack/internal/auth"
	"godstack/internal/record"
	"godstack/internal/viewer"
)

// The resolvers of auth.graphql: each is a call of the accounts' service.

func (r *queryResolver) Me(ctx context.Context) (record.Raw, error) {
	v, ok := viewer.FromContext(ctx)
	if !ok {
		return nil, nil
	}
	return record.Get(ctx, r.Stores.User, record.ID{Prefix: r.Stores.User.Prefix, UUID: v.ID})
}

func (r *queryResolver) Sessions(ctx context.Context) ([]*auth.Session, error) {
	return r.Auth.Sessions(ctx)
}

func (r *mutationResolver) Register(ctx context.Context, input auth.RegisterInput) (*auth.Payload, error) {
	return r.Auth.Register(ctx, input)
}

func (r *mutationResolver) Login(ctx context.Context, input auth.LoginInput) (*auth.Payload, error) {
	return r.Auth.Login(ctx, input)
}

func (r *mutationResolver) Refresh(ctx context.Context, refreshToken *string) (*auth.Payload, error) {
	return r.Auth.Refresh(ctx, refreshToken)
}

func (r *mutationResolver) Logout(ctx context.Context) (bool, error) {
	return r.Auth.Logout(ctx)
}

func (r *mutationResolver) LogoutEverywhere(ctx context.Context) (int, error) {
	return r.Auth.LogoutEverywhere(ctx)
}

func (r *mutationResolver) RevokeSession(ctx context.Context, id record.ID) (bool, error) {
	return r.Auth.RevokeSession(ctx, id)
}

func (r *mutationResolver) RequestEmailVerification(ctx context.Context, email *string) (bool, error) {
	return r.Auth.RequestEmailVerification(ctx, email)
}

func (r *mutationResolver) VerifyEmail(ctx context.Context, token string) (*auth.Payload, error) {
	return r.Auth.VerifyEmail(ctx, token)
}

func (r *mutationResolver) RequestPasswordReset(ctx context.Context, email string) (bool, error) {
	return r.Auth.RequestPasswordReset(ctx, email)
}

func (r *mutationResolver) ResetPassword(ctx context.Context, token string, password string) (bool, error) {
	return r.Auth.ResetPassword(ctx, token, password)
}

func (r *mutationResolver) ChangePassword(ctx context.Context, current string, password string) (*auth.Payload, error) {
	return r.Auth.ChangePassword(ctx, current, password)
}

func (r *mutationResolver) ChangeEmail(ctx context.Context, password string, email string) (bool, error) {
	return r.Auth.ChangeEmail(ctx, password, email)
}

func (r *mutationResolver) RevertEmail(ctx context.Context, token string) (bool, error) {
	return r.Auth.RevertEmail(ctx, token)
}

func (r *mutationResolver) EnrollTotp(ctx context.Context, password string) (*auth.TotpEnrollment, error) {
	return r.Auth.EnrollTotp(ctx, password)
}

func (r *mutationResolver) ConfirmTotp(ctx context.Context, code string) ([]string, error) {
	return r.Auth.ConfirmTotp(ctx, code)
}

func (r *mutationResolver) DisableTotp(ctx context.Context, password string, code string) (bool, error) {
	return r.Auth.DisableTotp(ctx, password, code)
}

func (r *mutationResolver) LockUser(ctx context.Context, id record.ID) (record.Raw, error) {
	id, err := r.Auth.LockUser(ctx, id)
	if err != nil {
		return nil, err
	}
	return record.Get(ctx, r.Stores.User, id)
}

func (r *mutationResolver) UnlockUser(ctx context.Context, id record.ID) (record.Raw, error) {
	id, err := r.Auth.UnlockUser(ctx, id)
	if err != nil {
		return nil, err
	}
	return record.Get(ctx, r.Stores.User, id)
}

func (r *mutationResolver) ResetTwoFactor(ctx context.Context, id record.ID) (record.Raw, error) {
	id, err := r.Auth.ResetTwoFactor(ctx, id)
	if err != nil {
		return nil, err
	}
	return record.Get(ctx, r.Stores.User, id)
}

func (r *mutationResolver) SetRole(ctx context.Context, id record.ID, role string) (record.Raw, error) {
	id, err := r.Auth.SetRole(ctx, id, role)
	if err != nil {
		return nil, err
	}
	return record.Get(ctx, r.Stores.User, id)
}

// User is read as who is signed in now sees themselves: the request's own viewer was nobody.
func (r *authPayloadResolver) User(ctx context.Context, p *auth.Payload) (record.Raw, error) {
	if p.Viewer == nil {
		return nil, nil
	}
	return record.Get(viewer.NewContext(ctx, *p.Viewer), r.Stores.User, record.ID{Prefix: r.Stores.User.Prefix, UUID: p.Viewer.ID})
}
