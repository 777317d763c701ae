package host_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/problem"
)

// failingService has a path for each way to fail, and some for what is no failure.
type failingService struct{ host.Base }

func (failingService) Name() string { return "failing" }

func (failingService) Mount(mux *http.ServeMux) error {
	mux.HandleFunc("POST /failing/panic", func(http.ResponseWriter, *http.Request) { panic("a secret") })
	mux.HandleFunc("POST /failing/late", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		panic("a secret")
	})
	mux.HandleFunc("/failing/error/{what}", func(w http.ResponseWriter, _ *http.Request) { problem.Write(w, errors.New("a secret")) })
	mux.HandleFunc("POST /failing/refused", func(w http.ResponseWriter, _ *http.Request) { problem.Write(w, problem.Missing("x")) })
	mux.HandleFunc("POST /failing/passed", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.HandleFunc("POST /failing/aborted", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	return nil
}

// The host tells of the requests that the node itself failed at, and of no others, without what only the log may hold.
func TestFailedRequestsAreTold(t *testing.T) {
	told := make(chan host.Failure, 10)
	r := run(t, host.Config{OnFailure: func(_ context.Context, f host.Failure) { told <- f }}, failingService{})
	<-r.Started()
	ask := func(path string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+path, nil)
		require.NoError(t, err)
		request.Header.Set("X-Request-Id", "id-of-"+path[len("/failing/"):])
		if response, err := r.client.Do(request); err == nil { // some are cut off
			response.Body.Close()
		}
	}
	for _, path := range []string{"refused", "passed", "aborted", "panic", "late", "error"} {
		if path == "error" {
			path = "error/anything"
		}
		ask("/failing/" + path)
	}
	detail := problem.From(errors.New("x")).Detail
	for _, want := range []host.Failure{
		{Operation: "POST /failing/panic", RequestID: "id-of-panic", Code: problem.Internal, Detail: detail},
		{Operation: "POST /failing/late", RequestID: "id-of-late", Code: problem.Internal, Detail: detail},
		{Operation: "POST /failing/error/{what}", Code: problem.Internal, Detail: detail},
	} {
		got := <-told
		if want.RequestID == "" { // it was not a plain id, and so another one was made
			got.RequestID = ""
		}
		require.Equal(t, want, got)
	}
	require.Empty(t, told)
}
