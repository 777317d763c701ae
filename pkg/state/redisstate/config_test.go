package redisstate

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A bad configuration is one clear error, and no password gets into it.
func TestBadConfigurations(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{URLs: []string{""}},
		{URLs: []string{"redis://user:hunter2@host:port:port/0"}},
		{URLs: []string{"redis://user:hunt er2@host:6379"}},
		{URLs: []string{"redis://user:hunter2%zz@host:6379"}},
		{URLs: []string{"redis://user:hunter2@host:6379/x"}},
		{URLs: []string{"amqp://user:hunter2@host:6379"}},
		{URLs: []string{"redis://user:hunter2@host:6379", "host:6379:hunter2"}},
		{URLs: []string{"redis://user:hunter2@host:6379/3"}, Cluster: true},
		{URLs: []string{"redis://user:hunter2@host:6379/3", "redis://other:6379"}},
		{URLs: []string{"redis://user:hunter2@host:6379"}, Cluster: true, MasterName: "main"},
	} {
		_, err := New(cfg)
		require.ErrorIs(t, err, state.ErrInvalid, "%v", cfg)
		require.NotContains(t, err.Error(), "hunter2")
		require.NotContains(t, err.Error(), "hunt er2")
	}
}

// The rule of the Redis cluster specification, with its corner cases.
func TestHashTag(t *testing.T) {
	for key, want := range map[string]string{
		"s:k": "s:k", "s:{a}x": "a", "{a}{b}": "a", "s:{}x": "s:{}x", "s:{}{b}": "s:{}{b}", "s:{a": "s:{a", "s:}a{": "s:}a{", "s:{{a}}": "{a",
	} {
		require.Equal(t, want, hashTag(key), key)
	}
}
