package pubsub

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/redis/rueidis"
)

// NewRedis returns a node that wakes, and is woken by, those with the same channel on the same Redis, version 5 or newer or what speaks
// its protocol. Channels are the server's, whatever database option names: programs that share a server have one each. Only where to
// connect, and as whom, is taken from option. It connects in Run.
func NewRedis(option rueidis.ClientOption, channel string, cfg *Config) (*Node, error) {
	if channel == "" {
		return nil, errors.New("pubsub: the channel has no name")
	}
	n, err := newNode("redis", cfg)
	if err != nil {
		return nil, err
	}
	option.DisableCache, option.DisableRetry = true, true
	// One server of a cluster is enough, as they pass hints on: any of those that are named.
	option.ForceSingleClient, option.ShuffleInit, option.InitAddress = true, true, slices.Clone(option.InitAddress)
	option.PipelineMultiplex = -1 // one connection
	option.Dialer.Timeout, option.Dialer.KeepAlive, option.ConnWriteTimeout = n.cfg.Timeout, n.cfg.Probe, n.cfg.Timeout
	if option.ClientName == "" {
		option.ClientName = "pubsub"
	}
	n.session = (&redis{option, channel, n.id}).session
	return n, nil
}

type redis struct {
	option  rueidis.ClientOption
	channel string
	id      string // of the node
}

func (r *redis) session(ctx context.Context, ready func(func(context.Context) error), got func(string)) error {
	ctx, cancel := context.WithCancel(ctx)
	option := r.option
	option.DialCtxFn = func(_ context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, &r.option, address, d, t)
		if err == nil {
			context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends whatever the client waits for
		}
		return conn, err
	}
	client, err := rueidis.NewClient(option)
	if err != nil {
		cancel()
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	defer cancel() // first, or Close would wait for a server that is silent
	publish := client.B().Publish().Channel(r.channel).Message(r.id).Build().Pin()
	subscribed := rueidis.WithOnSubscriptionHook(ctx, func(s rueidis.PubSubSubscription) {
		if s.Kind == "subscribe" {
			ready(func(ctx context.Context) error { return client.Do(ctx, publish).Error() })
		}
	})
	err = client.Receive(subscribed, client.B().Subscribe().Channel(r.channel).Build(), func(m rueidis.PubSubMessage) { got(m.Message) })
	return fmt.Errorf("wait for a hint: %w", cmp.Or(err, errors.New("unsubscribed")))
}

// dial is what the client does where option has no function for it, but ends with ctx.
func dial(ctx context.Context, option *rueidis.ClientOption, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
	switch {
	case option.DialCtxFn != nil:
		return option.DialCtxFn(ctx, address, d, t)
	case t != nil:
		return (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", address)
	default:
		return d.DialContext(ctx, "tcp", address)
	}
}
