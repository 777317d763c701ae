package mesh_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// echoJSON answers with what it got.
var echoJSON = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
})

type kilobyte struct {
	Text string `json:"text"`
}

var message = kilobyte{Text: string(bytes.Repeat([]byte("x"), 1000))}

// BenchmarkCall compares a 1 KiB call by the mesh with the plain call it replaces.
func BenchmarkCall(b *testing.B) {
	w := newWorld(b)
	s := w.serve(b, "remote", "node-1", echoJSON)
	body, err := json.Marshal(message)
	require.NoError(b, err)
	transport := mesh.NewTransport()
	b.Cleanup(transport.CloseIdleConnections)
	plain := &http.Client{Transport: transport}
	remote := w.client(b, mesh.ClientConfig{})
	local := w.client(b, mesh.ClientConfig{AppID: "bannou", Local: echoJSON})

	b.Run("net-http", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			resp, err := plain.Post(s.URL+"/svc/echo", "application/json", bytes.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
	b.Run("mesh-Do", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			benchDo(b, remote, "remote", body)
		}
	})
	b.Run("mesh-Invoke", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := mesh.Invoke[kilobyte, kilobyte](b.Context(), remote, "remote", "svc/echo", message); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("handler", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			rec := httptest.NewRecorder()
			echoJSON.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/svc/echo", bytes.NewReader(body)))
		}
	})
	b.Run("direct-Do", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			benchDo(b, local, "bannou", body)
		}
	})
	b.Run("direct-Invoke", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := mesh.Invoke[kilobyte, kilobyte](b.Context(), local, "bannou", "svc/echo", message); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchDo(b *testing.B, c *mesh.Client, target string, body []byte) {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "/svc/echo", bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(b.Context(), target, req)
	if err != nil {
		b.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

// BenchmarkRoute is what a call pays to find its instance: one of 100 of an app-id, one of ten.
func BenchmarkRoute(b *testing.B) {
	c := manyInstances(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Route("service-7"); err != nil {
			b.Fatal(err)
		}
	}
}

func manyInstances(t testing.TB) *mesh.Client {
	w := newWorld(t)
	mappings := map[string]string{}
	for i := range 1000 {
		app := fmt.Sprintf("app-%d", i/100)
		w.register(t, endpoint(app, fmt.Sprintf("node-%03d", i), "state"))
		mappings[fmt.Sprintf("service-%d", i/100)] = app
	}
	_, err := w.registry.SetMappings(t.Context(), mappings, "")
	require.NoError(t, err)
	return w.client(t, mesh.ClientConfig{})
}

func TestFindingAnInstanceAllocatesNothing(t *testing.T) {
	c := manyInstances(t)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := c.Route("service-7"); err != nil {
			t.Fatal(err)
		}
	}))
}

// BenchmarkProxy is one pass-through hop, to compare with BenchmarkCall/net-http.
func BenchmarkProxy(b *testing.B) {
	w := newWorld(b)
	w.serve(b, "remote", "node-1", echoJSON)
	body, err := json.Marshal(message)
	require.NoError(b, err)
	front := httptest.NewServer(mesh.NewProxy(w.client(b, mesh.ClientConfig{}), mesh.ProxyConfig{}))
	b.Cleanup(front.Close)
	transport := mesh.NewTransport()
	b.Cleanup(transport.CloseIdleConnections)
	plain := &http.Client{Transport: transport}
	b.ReportAllocs()
	for b.Loop() {
		resp, err := plain.Post(front.URL+"/v1.0/invoke/remote/method/svc/echo", "application/json", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}
