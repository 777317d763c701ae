package redisbus

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// What Redis does not answer does not make a stream's number unknown, without which nothing that is trimmed from then on is counted; unless
// something may have been trimmed before what was read, or Redis says that there is no stream.
func TestANumberOutlivesAQuestionThatIsNotAnswered(t *testing.T) {
	noStream := redisError("ERR no such key")
	read := []entry{{at: position{ms: 9}}}
	for name, c := range map[string]struct {
		age  time.Duration // since nothing was left to read
		list []entry
		err  error
		want int64
	}{
		"nothing was read":          {time.Minute, nil, io.EOF, 7},
		"read soon":                 {6 * time.Second, read, io.EOF, 7},
		"read late":                 {time.Minute, read, io.EOF, -1},
		"the stream was deleted":    {6 * time.Second, read, noStream, -1},
		"and nothing was read then": {time.Minute, nil, noStream, -1},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shared{d: &Driver{cfg: Config{Grace: 10 * time.Second}}}
			w := &watched{number: 7, whole: time.Now().Add(-c.age), readers: map[*aloneConsumer]struct{}{{}: {}}}
			sh, lists := &shard{streams: map[string]*watched{"orders": w}}, map[string][]entry{"orders": c.list}
			require.Equal(t, []string{"orders"}, s.doubtful(sh, []string{"orders"}, lists, time.Now()))
			info := redis.NewXInfoStreamCmd(context.Background(), "orders")
			info.SetErr(c.err)
			s.settle("orders", w, info, c.list)
			require.Equal(t, c.want, w.number)
			require.Equal(t, c.want >= 0, len(s.doubtful(sh, []string{"orders"}, nil, time.Now())) == 1, "it is asked again")
		})
	}
}

type redisError string

func (e redisError) Error() string { return string(e) }
func (redisError) RedisError()     {}
