package guard_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/guard/guardtest"
	"github.com/bannou-mesh/bannou/services/host"
)

// who answers with the app-id that called.
type who struct{ host.Base }

func (who) Name() string { return "who" }
func (who) Mount(mux *http.ServeMux) error {
	mux.HandleFunc("/who/called", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, guard.Caller(r.Context())) })
	return nil
}

// guarded starts a host of an app-id, and returns its address.
func guarded(t *testing.T, appID string, f guardtest.Files, log *slog.Logger) string {
	t.Helper()
	certificates, err := guard.NewCertificates(f.Cert, f.Key, f.Authority, appID, log)
	require.NoError(t, err)
	g := newGuard(t, guard.Config{AppID: appID, Certificates: certificates, Rules: map[string][]string{"who": {"game", "accounts"}}})
	h, err := host.New(host.Config{Listen: "127.0.0.1:0", TLS: g.Server(), Admit: g.Admit})
	require.NoError(t, err)
	require.NoError(t, h.Add(who{}))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	<-h.Started()
	return h.Addr().String()
}

// caller is a mesh client with a certificate that knows one instance of an app-id.
func caller(t *testing.T, f guardtest.Files, target, address string) *mesh.Client {
	t.Helper()
	return logging(t, f, target, address, nil)
}

func logging(t *testing.T, f guardtest.Files, target, address string, log *slog.Logger) *mesh.Client {
	t.Helper()
	certificates, err := guard.NewCertificates(f.Cert, f.Key, f.Authority, "", log)
	require.NoError(t, err)
	feed := new(meshtest.Feed)
	registry, err := mesh.NewRegistry(meshtest.NewTable(), feed, mesh.RegistryConfig{})
	require.NoError(t, err)
	name, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	require.NoError(t, registry.Register(t.Context(), mesh.Endpoint{AppID: target, InstanceID: "node-1", Host: name, Port: number, Services: []string{"who"}}))
	directory := mesh.NewDirectory(registry, feed, mesh.DirectoryConfig{})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = directory.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	<-directory.Running()
	client, err := mesh.NewClient(mesh.ClientConfig{Directory: directory, TLS: certificates.Client, Ejection: mesh.Ejection{Off: true}})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

func call(ctx context.Context, c *mesh.Client, target string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/who/called", http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(ctx, target, req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// show calls with what files hold, whatever it is.
func show(t *testing.T, f guardtest.Files, address string) error {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(t, err)
	pool, err := guard.ReadAuthority(f.Authority)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://" + address + "/who/called")
	if err == nil {
		_ = resp.Body.Close()
	}
	return err
}

func TestCertificatesSayWhoCalls(t *testing.T) {
	authority, stranger := guardtest.NewAuthority(t), guardtest.NewAuthority(t)
	address := guarded(t, "accounts", authority.Node(t, "accounts"), nil)

	status, app, err := call(t.Context(), caller(t, authority.Node(t, "game"), "accounts", address), "accounts")
	require.NoError(t, err)
	require.Equal(t, 200, status)
	require.Equal(t, "game", app)
	status, answer, err := call(t.Context(), caller(t, authority.Node(t, "web"), "accounts", address), "accounts")
	require.NoError(t, err)
	require.Equal(t, 403, status)
	require.Contains(t, answer, `\"web\"`)
	require.Contains(t, answer, "mesh.access.who")

	// Neither side takes one that another authority signed, or that is over.
	of := authority.Node(t, "game")
	stranger.Issue(t, of.Cert, of.Key, time.Hour, "game")
	require.ErrorContains(t, show(t, of, address), "certificate")
	authority.Issue(t, of.Cert, of.Key, -time.Minute, "game")
	require.ErrorContains(t, show(t, of, address), "certificate")
	of = stranger.Node(t, "game")
	_, _, err = call(t.Context(), caller(t, of, "accounts", address), "accounts")
	require.ErrorContains(t, err, "unknown authority")

	// Wherever the registry says that an app-id is: another one is not taken for it, also if it bears the name beside its own.
	_, _, err = call(t.Context(), caller(t, authority.Node(t, "game"), "payments", address), "payments")
	require.ErrorContains(t, err, "payments")
	both := authority.Node(t, "accounts")
	authority.Issue(t, both.Cert, both.Key, time.Hour, "accounts", "payments")
	_, _, err = call(t.Context(), caller(t, authority.Node(t, "game"), "payments", guarded(t, "accounts", both, nil)), "payments")
	require.ErrorContains(t, err, `for the app-id "accounts"`)
}

// Without a certificate, a caller gets to the probes, and further with a token.
func TestCallersWithoutACertificate(t *testing.T) {
	authority := guardtest.NewAuthority(t)
	files := authority.Node(t, "accounts")
	address := guarded(t, "accounts", files, nil)
	pool, err := guard.ReadAuthority(files.Authority)
	require.NoError(t, err)
	outside := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	defer outside.CloseIdleConnections()
	for _, c := range []struct {
		path, token string
		status      int
	}{
		{"/healthz", "", 200}, {"/readyz", "", 200}, {"/who/called", "", 401}, {"/openapi.yaml", "", 401}, {"/nothing", "", 401},
		{"/who/called", "wrong-0123456789", 401}, {"/who/called", webToken, 403}, {"/who/called", gameToken, 200}, {"/nothing", gameToken, 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+c.path, http.NoBody)
		require.NoError(t, err)
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		resp, err := outside.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, c.status, resp.StatusCode, c)
	}
	plain, err := http.Get("http://" + address + "/who/called")
	require.NoError(t, err)
	require.NoError(t, plain.Body.Close())
	require.Equal(t, 400, plain.StatusCode, "there is no way around TLS")
}

// Certificates, keys and then the authority are replaced on both sides while calls are made, over new connections all the
// time. No call fails.
func TestCertificatesAreReplacedInMidTraffic(t *testing.T) {
	old, fresh := guardtest.NewAuthority(t), guardtest.NewAuthority(t)
	server, client := old.Node(t, "accounts"), old.Node(t, "game")
	var log lockedBuffer // of both
	logger := slog.New(slog.NewTextHandler(&log, nil))
	address := guarded(t, "accounts", server, logger)
	c := logging(t, client, "accounts", address, logger)

	var calls, failed atomic.Int64
	var first atomic.Pointer[error]
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				status, app, err := call(context.WithoutCancel(ctx), c, "accounts")
				if err == nil && (status != 200 || app != "game") {
					err = fmt.Errorf("status %d, %q", status, app)
				}
				if calls.Add(1); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, &err)
				}
				c.Close() // idle connections: the next call makes one anew
			}
		})
	}
	both := []guardtest.Files{server, client}
	step := func(change func()) { // and wait until calls were made by what is there now
		log.Reset()
		change()
		require.Eventually(t, func() bool { return bytes.Count(log.Bytes(), []byte("were read again")) >= 2 }, 10*time.Second, time.Millisecond)
		seen := calls.Load()
		require.Eventually(t, func() bool { return calls.Load() > seen+20 }, 10*time.Second, time.Millisecond)
	}
	step(func() {
		for _, f := range both {
			guardtest.Write(t, f.Authority, old, fresh)
		}
	})
	step(func() {
		fresh.Issue(t, server.Cert, server.Key, time.Hour, "accounts")
		fresh.Issue(t, client.Cert, client.Key, time.Hour, "game")
	})
	step(func() {
		for _, f := range both {
			guardtest.Write(t, f.Authority, fresh)
		}
	})
	stop()
	load.Wait()
	if err := first.Load(); err != nil {
		t.Errorf("%d of %d calls failed, first: %v", failed.Load(), calls.Load(), *err)
	}
	t.Logf("%d calls, %d failed", calls.Load(), failed.Load())
	_, _, err := call(t.Context(), caller(t, old.Node(t, "game"), "accounts", address), "accounts")
	require.Error(t, err, "the old authority is trusted no more")

	// What cannot be used changes nothing: one of an authority that others do not ask, one for another app-id.
	log.Reset()
	old.Issue(t, server.Cert, server.Key, time.Hour, "accounts")
	require.Eventually(t, func() bool {
		c.Close()
		_, _, err := call(t.Context(), c, "accounts")
		require.NoError(t, err)
		return bytes.Contains(log.Bytes(), []byte("unknown authority"))
	}, 10*time.Second, 10*time.Millisecond)
	log.Reset()
	old.Issue(t, server.Cert, server.Key, time.Hour, "payments")
	require.Eventually(t, func() bool {
		c.Close()
		_, _, err := call(t.Context(), c, "accounts")
		require.NoError(t, err)
		return bytes.Contains(log.Bytes(), []byte("payments"))
	}, 10*time.Second, 10*time.Millisecond)
}

func TestCertificatesAreCheckedWhenTheyAreRead(t *testing.T) {
	authority := guardtest.NewAuthority(t)
	f, other := authority.Node(t, "game"), authority.Node(t, "game")
	_, err := guard.NewCertificates(f.Cert, f.Key, f.Authority, "web", nil)
	require.ErrorContains(t, err, `for the app-id "game", and this node is "web"`)
	_, err = guard.NewCertificates(f.Cert, other.Key, f.Authority, "game", nil)
	require.ErrorContains(t, err, f.Cert)
	_, err = guard.NewCertificates(f.Cert, f.Key, f.Key, "game", nil)
	require.ErrorContains(t, err, "no certificate of an authority")
	for lifetime, by := range map[time.Duration]*guardtest.Authority{time.Hour: guardtest.NewAuthority(t), -time.Minute: authority} {
		by.Issue(t, f.Cert, f.Key, lifetime, "game")
		_, err = guard.NewCertificates(f.Cert, f.Key, f.Authority, "game", nil)
		require.ErrorContains(t, err, f.Cert, "what others would not take")
		require.ErrorContains(t, err, f.Authority)
	}
	authority.Issue(t, f.Cert, f.Key, time.Hour)
	_, err = guard.NewCertificates(f.Cert, f.Key, f.Authority, "game", nil)
	require.ErrorContains(t, err, "names no app-id")
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.Buffer.Bytes())
}

func (b *lockedBuffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Buffer.Reset()
}
