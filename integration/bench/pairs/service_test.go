package pairs

import (
	"bytes"
	"context"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/host"
	statesvc "github.com/bannou-mesh/bannou/services/state"
)

// BenchmarkStateService has a handler beside it that does the same by hand, with net/http and encoding/json, on the same
// stores: it reads the body, asks the store, writes the answer. It has neither strict checks nor ids of requests, traces,
// metrics, time limits and drains. Both are called over loopback, by the same client.
func BenchmarkStateService(b *testing.B) {
	redis, err := redisstate.New(redisstate.Config{URLs: []string{servers.NewRedis(b, servers.RedisOptions{Fsync: "everysec"}).URL}})
	require.NoError(b, err)
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(b.TempDir(), "bench.db")})
	require.NoError(b, err)
	metrics, err := host.NewMetrics()
	require.NoError(b, err)
	backends := []string{"redis", "sqlite"}
	var stores []state.StoreConfig
	for _, backend := range backends {
		stores = append(stores, state.StoreConfig{Name: backend, Backend: backend})
	}
	factory, err := state.NewFactory(stores, []state.Driver{redis, sqlite}, state.Options{MeterProvider: metrics.MeterProvider()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, factory.Close()) })
	service, err := statesvc.New(statesvc.Config{Factory: factory, MeterProvider: metrics.MeterProvider()})
	require.NoError(b, err)
	bannou := serveHost(b, service, metrics)
	raw := httptest.NewServer(rawService(b, factory, backends))
	b.Cleanup(raw.Close)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.Cleanup(client.CloseIdleConnections)

	for _, backend := range backends {
		store, err := state.Open[account](b.Context(), factory, backend)
		require.NoError(b, err)
		saveAccounts(b, store)
		callers := []int{1, 16, 64}
		compareCalls(b, "get "+backend, callers, serviceGetter(client, raw.URL, backend), serviceGetter(client, bannou, backend))
		compareCalls(b, "save "+backend, callers, serviceSaver(client, raw.URL, backend), serviceSaver(client, bannou, backend))
	}
}

// serveHost runs the service as a node does, and returns its address.
func serveHost(b *testing.B, service host.Service, metrics *host.Metrics) string {
	h, err := host.New(host.Config{
		Listen: "127.0.0.1:0", Metrics: metrics, RequestContext: mesh.WithRequestID, OnFailure: func(context.Context, host.Failure) {},
	})
	require.NoError(b, err)
	require.NoError(b, h.Add(service))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		require.NoError(b, <-ended)
	})
	<-h.Started()
	return "http://" + h.Addr().String()
}

// The bodies of the service, as a program without its OpenAPI document would write them down.
type (
	getRequest struct {
		StoreName string `json:"storeName"`
		Key       string `json:"key"`
	}
	getAnswer struct {
		Value    stdjson.RawMessage `json:"value"`
		ETag     string             `json:"etag"`
		Metadata metadata           `json:"metadata"`
	}
	metadata struct {
		CreatedAt time.Time  `json:"createdAt"`
		UpdatedAt time.Time  `json:"updatedAt"`
		ExpiresAt *time.Time `json:"expiresAt,omitempty"`
		Version   int64      `json:"version"`
	}
	saveRequest struct {
		StoreName string             `json:"storeName"`
		Key       string             `json:"key"`
		Value     stdjson.RawMessage `json:"value"`
		Options   struct {
			TTL  *int64  `json:"ttl"`
			ETag *string `json:"etag"`
		} `json:"options"`
	}
	saveAnswer struct {
		ETag    string `json:"etag"`
		Success bool   `json:"success"`
	}
)

// rawService is the handler that is written by hand.
func rawService(b *testing.B, factory *state.Factory, names []string) http.Handler {
	stores := map[string]*state.Store[stdjson.RawMessage]{}
	for _, name := range names {
		store, err := state.Open[stdjson.RawMessage](b.Context(), factory, name)
		require.NoError(b, err)
		stores[name] = store
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /state/get", func(w http.ResponseWriter, r *http.Request) {
		var in getRequest
		if !decodeBody(w, r, &in) {
			return
		}
		store, known := stores[in.StoreName]
		if !known {
			http.Error(w, "no such store", http.StatusNotFound)
			return
		}
		entry, err := store.GetWithETag(r.Context(), in.Key)
		switch {
		case errors.Is(err, state.ErrNotFound):
			http.Error(w, "no such key", http.StatusNotFound)
			return
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer := getAnswer{entry.Value, entry.ETag, metadata{CreatedAt: entry.CreatedAt, UpdatedAt: entry.UpdatedAt, Version: entry.Version}}
		if !entry.ExpiresAt.IsZero() {
			answer.Metadata.ExpiresAt = &entry.ExpiresAt
		}
		encodeBody(w, answer)
	})
	mux.HandleFunc("POST /state/save", func(w http.ResponseWriter, r *http.Request) {
		var in saveRequest
		if !decodeBody(w, r, &in) {
			return
		}
		store, known := stores[in.StoreName]
		if !known {
			http.Error(w, "no such store", http.StatusNotFound)
			return
		}
		var etag string
		var err error
		if in.Options.ETag != nil {
			etag, err = store.TrySave(r.Context(), in.Key, in.Value, *in.Options.ETag)
		} else {
			etag, err = store.Save(r.Context(), in.Key, in.Value)
		}
		switch {
		case errors.Is(err, state.ErrConflict):
			http.Error(w, "conflict", http.StatusConflict)
			return
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		encodeBody(w, saveAnswer{etag, true})
	})
	return mux
}

func decodeBody(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := stdjson.NewDecoder(http.MaxBytesReader(w, r.Body, 8<<20)).Decode(into); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func encodeBody(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	_ = stdjson.NewEncoder(w).Encode(answer) // the client may be gone
}

func serviceGetter(c *http.Client, base, store string) call {
	return func(ctx context.Context, caller int) error {
		answer, err := askService(ctx, c, base+"/state/get", getRequest{store, accountKey(caller)})
		if err != nil {
			return err
		}
		var got struct {
			Value account `json:"value"`
			ETag  string  `json:"etag"`
		}
		if err := json.Unmarshal(answer, &got); err != nil {
			return err
		}
		if got.ETag == "" {
			return fmt.Errorf("account %d: no ETag", caller)
		}
		return got.Value.check(caller)
	}
}

func serviceSaver(c *http.Client, base, store string) call {
	return func(ctx context.Context, caller int) error {
		answer, err := askService(ctx, c, base+"/state/save", struct {
			StoreName string  `json:"storeName"`
			Key       string  `json:"key"`
			Value     account `json:"value"`
		}{store, accountKey(caller), newAccount(caller)})
		if err != nil {
			return err
		}
		var got saveAnswer
		if err := json.Unmarshal(answer, &got); err != nil {
			return err
		}
		if got.ETag == "" || !got.Success {
			return fmt.Errorf("account %d: %s", caller, answer)
		}
		return nil
	}
}

// askService posts a body and returns that of a successful answer.
func askService(ctx context.Context, c *http.Client, address string, body any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", response.Status, answer)
	}
	return answer, nil
}
