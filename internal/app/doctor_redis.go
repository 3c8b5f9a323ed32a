package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"godstack/internal/ratelimit"
)

// leastRedis is the major version of Redis that is needed.
const leastRedis = 5

var redisVersion = regexp.MustCompile(`(?m)^(?:valkey|redis)_version:(\d+)(\S*)\r?$`)

// redis asks for what nodes do there: they count by a script, and wake each other by messages.
func (d *doctor) redis(ctx context.Context) {
	const name = "redis"
	if d.cfg.RedisURL == "" {
		d.ok(name, "none: nodes count and wake each other in Postgres")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	client, err := openRedis(d.cfg.RedisURL)
	if err != nil {
		d.fail(name, "see that Redis runs, that this machine reaches it, and that REDIS_URL has its password", "%v", err)
		return
	}
	defer client.Close()
	info, err := client.Do(ctx, client.B().Info().Section("server").Build()).ToString()
	switch m := redisVersion.FindStringSubmatch(info); {
	case err != nil:
		d.fail(name, "let its user run INFO", "%v", err)
		return
	case m == nil:
		d.warn(name, "see that it speaks Redis' protocol of version 5 or newer", "it does not say its version")
	default:
		if major, _ := strconv.Atoi(m[1]); major < leastRedis {
			d.fail(name, "take version 5 or newer", "version %s%s", m[1], m[2])
		} else {
			d.ok(name, "version %s%s answers", m[1], m[2])
		}
	}
	limit := ratelimit.Limit{Name: "doctor", Quota: 1000, Window: time.Second}
	if _, err := ratelimit.NewRedis(client, "godstack:doctor:").Take(ctx, rand.Text(), limit); err != nil {
		d.fail("redis.limits", "let its user run scripts and TIME, GET and SET keys that begin with godstack:", "%v", err)
	} else {
		d.ok("redis.limits", "it counts")
	}
	began := time.Now()
	if err := echo(ctx, client); err != nil {
		d.fail("redis.pubsub", "let its user SUBSCRIBE and PUBLISH to channels that begin with godstack:", "%v", err)
	} else {
		d.ok("redis.pubsub", "a message arrives, after %s", time.Since(began).Round(100*time.Microsecond))
	}
}

// echo subscribes, publishes, and waits for what was published.
func echo(ctx context.Context, client rueidis.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	channel := "godstack:doctor:" + rand.Text()
	subscribed, heard, ended := make(chan struct{}), make(chan struct{}, 1), make(chan error, 1)
	once := sync.OnceFunc(func() { close(subscribed) }) // it subscribes again where its connection is lost
	hook := rueidis.WithOnSubscriptionHook(ctx, func(s rueidis.PubSubSubscription) {
		if s.Kind == "subscribe" {
			once()
		}
	})
	var receiving sync.WaitGroup
	defer receiving.Wait()
	defer cancel()
	receiving.Go(func() {
		ended <- client.Receive(hook, client.B().Subscribe().Channel(channel).Build(), func(rueidis.PubSubMessage) {
			select {
			case heard <- struct{}{}:
			default:
			}
		})
	})
	select {
	case err := <-ended:
		return fmt.Errorf("subscribe: %w", cmp.Or(err, errors.New("it ended")))
	case <-subscribed:
	}
	err := client.Do(ctx, client.B().Publish().Channel(channel).Message("").Build()).Error()
	if err != nil {
		err = fmt.Errorf("publish: %w", err)
	} else {
		select {
		case <-heard:
		case <-ctx.Done():
			err = errors.New("no message arrives")
		}
	}
	return err
}
