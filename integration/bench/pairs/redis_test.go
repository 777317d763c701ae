package pairs

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// BenchmarkRedis has an append-only file that is flushed every second, as operators mostly have it. The raw side reads
// and writes the same hashes: with HMGET, and with the driver's own script by its hash.
func BenchmarkRedis(b *testing.B) {
	server := servers.NewRedis(b, servers.RedisOptions{Fsync: "everysec"})
	driver, err := redisstate.New(redisstate.Config{URLs: []string{server.URL}})
	require.NoError(b, err)
	store, err := state.Open[account](b.Context(), newFactory(b, driver), storeName)
	require.NoError(b, err)
	options, err := redis.ParseURL(server.URL)
	require.NoError(b, err)
	raw := rawRedis{redis.NewClient(options), loadScript(b)}
	b.Cleanup(func() { require.NoError(b, raw.client.Close()) })
	saveAccounts(b, store)

	compareCalls(b, "get", stateCallers, raw.get, getter(store))
	compareCalls(b, "save", stateCallers, raw.save, saver(store))
	compareCalls(b, "get 100 at once", stateCallers, raw.getMany, manyGetter(store))
}

type rawRedis struct {
	client *redis.Client
	script *redis.Script
}

func loadScript(b *testing.B) *redis.Script {
	text, err := os.ReadFile("../../../pkg/state/redisstate/apply.lua")
	require.NoError(b, err)
	return redis.NewScript(string(text))
}

func redisKey(number int) string { return storeName + ":" + accountKey(number) }

func (r rawRedis) get(ctx context.Context, caller int) error {
	fields, err := r.client.HMGet(ctx, redisKey(caller), hashFields()...).Result()
	if err != nil {
		return err
	}
	return checkHash(fields, caller)
}

func hashFields() []string {
	return []string{"data", "version", "nonce", "createdAt", "updatedAt", "expiry"}
}

func checkHash(fields []any, number int) error {
	data, ok := fields[0].(string)
	if !ok {
		return fmt.Errorf("account %d has no data", number)
	}
	return checkJSON([]byte(data), number)
}

func (r rawRedis) save(ctx context.Context, caller int) error {
	data, err := json.Marshal(newAccount(caller))
	if err != nil {
		return err
	}
	answers, err := r.client.EvalSha(ctx, r.script.Hash(), []string{redisKey(caller)},
		time.Now().UTC().Format(time.RFC3339Nano), "save", "always", "keep", rand.Text()[:16], data).Slice()
	if err != nil {
		return err
	}
	if version, ok := answers[0].(string); !ok || version == "" {
		return fmt.Errorf("the script answered %v", answers)
	}
	return nil
}

func (r rawRedis) getMany(ctx context.Context, _ int) error {
	pipe := r.client.Pipeline()
	var found [bulk]*redis.SliceCmd
	for number := range found {
		found[number] = pipe.HMGet(ctx, redisKey(number), hashFields()...)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return err
	}
	for number, fields := range found {
		if err := checkHash(fields.Val(), number); err != nil {
			return err
		}
	}
	return nil
}
