package jsonbody_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/problem"
)

type greeted struct{}

type greeting struct {
	Name string `json:"name"`
}

func TestAnswer(t *testing.T) {
	away := errors.New("the store is away")
	operations := jsonbody.Operations{
		Limits:  jsonbody.Limits{MaxBytes: 64},
		Timeout: time.Minute,
		Context: func(r *http.Request) context.Context {
			return context.WithValue(r.Context(), greeted{}, r.Header.Get("X-Greeting"))
		},
		Problem: func(err error) error {
			if errors.Is(err, away) {
				return problem.New(problem.Unavailable, "try again").Because(err)
			}
			return err
		},
	}
	done := 0
	greet := func(ctx context.Context, q *greeting) (*greeting, error) {
		done++
		deadline, has := ctx.Deadline()
		require.True(t, has)
		require.WithinDuration(t, time.Now().Add(time.Minute), deadline, 30*time.Second)
		if q.Name == "nobody" {
			return nil, away
		}
		return &greeting{Name: ctx.Value(greeted{}).(string) + ", " + q.Name}, nil
	}
	for _, c := range []struct {
		body, want string
		status     int
		does       bool
	}{
		{`{"name":"Ada"}`, `"name":"Hello, Ada"`, http.StatusOK, true},
		{`{"name":"nobody"}`, `"code":"unavailable"`, http.StatusServiceUnavailable, true},
		{`{"name":7}`, `"member":"name"`, http.StatusBadRequest, false},
		{`{"name":"` + strings.Repeat("A", 64) + `"}`, `"code":"body_too_large"`, http.StatusRequestEntityTooLarge, false},
	} {
		before := done
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/greet", strings.NewReader(c.body))
		r.Header.Set("X-Greeting", "Hello")
		jsonbody.Answer(operations, w, r, greet)
		require.Equal(t, c.status, w.Code, c.body)
		require.Contains(t, w.Body.String(), c.want)
		require.Equal(t, c.does, done > before, "a request that cannot be read is not done: %s", c.body)
	}
}

// Without a context and problems of their own, operations have the request's, and tell nothing of an error that is no problem.
func TestAnswerByDefault(t *testing.T) {
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/greet", nil)
	jsonbody.Answer(jsonbody.Operations{Timeout: time.Minute}, w, r, func(context.Context, *greeting) (*greeting, error) {
		return nil, errors.New("dial amqp://user:secret@broker")
	})
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.NotContains(t, w.Body.String(), "secret")
}
