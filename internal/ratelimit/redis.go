package ratelimit

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

// Redis keeps limits in Redis 5 or newer, or what speaks its protocol, as keys that expire by themselves.
type Redis struct {
	client rueidis.Client
	prefix string
}

var _ Store = (*Redis)(nil)

// NewRedis returns a store in the client's database. All of its keys begin with prefix, such as "godstack:limit:".
func NewRedis(client rueidis.Client, prefix string) *Redis { return &Redis{client, prefix} }

// takeScript answers whether ARGV[1], an interval, was granted to a key whose time may be ARGV[2] ahead of the clock,
// and how far ahead it is; all in microseconds, which a Lua number holds exactly.
var takeScript = rueidis.NewLuaScript(`
local clock = redis.call('TIME')
local now, interval, burst = clock[1] * 1000000 + clock[2], tonumber(ARGV[1]), tonumber(ARGV[2])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
if tat + interval > now + burst then
    return {0, tat - now}
end
tat = tat + interval
redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000))
return {1, tat - now}`)

// Take implements [Store].
func (r *Redis) Take(ctx context.Context, key string, l Limit) (Result, error) {
	c, err := l.cell()
	if err != nil {
		return Result{}, err
	}
	args := []string{strconv.FormatInt(c.interval.Microseconds(), 10), strconv.FormatInt(c.burst.Microseconds(), 10)}
	got, err := takeScript.Exec(ctx, r.client, []string{r.prefix + storeKey(l, key)}, args).AsIntSlice()
	if err != nil {
		return Result{}, fmt.Errorf("take from limit %s: %w", l.Name, err)
	}
	if len(got) != 2 {
		return Result{}, fmt.Errorf("take from limit %s: the script answered %d numbers", l.Name, len(got))
	}
	return l.result(c, got[0] == 1, time.Duration(got[1])*time.Microsecond), nil
}
