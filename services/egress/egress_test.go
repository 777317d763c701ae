package egress_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/services/egress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type resolver map[string][]string

func (r resolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, s := range r[host] {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	if addrs == nil {
		return nil, errors.New("no such host")
	}
	return addrs, nil
}

func policy(t *testing.T, cfg egress.Config) *egress.Policy {
	t.Helper()
	p, err := egress.New(cfg)
	require.NoError(t, err)
	return p
}

func TestCheckURL(t *testing.T) {
	names := resolver{
		"localhost":     {"127.0.0.1", "::1"},
		"both.example":  {"127.0.0.1", "93.184.216.34"},
		"inner.example": {"10.1.2.3"},
		"meta.example":  {"169.254.169.254"},
	}
	loopback := policy(t, egress.Config{Resolver: names})
	private := policy(t, egress.Config{Resolver: names, Networks: []string{"10.0.0.0/8", "fd00::/8"}})
	wide := policy(t, egress.Config{Resolver: names, Networks: []string{"0.0.0.0/0", "::/0"}})
	named := policy(t, egress.Config{Resolver: names, Networks: []string{"169.254.10.0/24"}})
	none := policy(t, egress.Config{Resolver: names, NoLoopback: true})

	for _, c := range []struct {
		policy *egress.Policy
		url    string
		want   error
	}{
		{loopback, "http://127.0.0.1:8080/x", nil},
		{loopback, "https://localhost/x", nil},
		{loopback, "http://127.9.9.9/", nil},
		{loopback, "http://[::1]:80/", nil},
		{loopback, "http://[::ffff:127.0.0.1]/", nil},
		{loopback, "http://[::ffff:10.0.0.1]/", egress.ErrNotAllowed},
		{loopback, "http://10.0.0.1/", egress.ErrNotAllowed},
		{loopback, "http://0.0.0.0/", egress.ErrNotAllowed},
		{loopback, "http://[::]/", egress.ErrNotAllowed},
		{loopback, "http://169.254.169.254/latest/meta-data", egress.ErrNotAllowed},
		{loopback, "http://[fe80::1%25lo]/", egress.ErrNotAllowed},
		{loopback, "http://both.example/", egress.ErrNotAllowed},
		{loopback, "http://nowhere.example/", egress.ErrUnresolved},
		{loopback, "http://user:secret@127.0.0.1/", egress.ErrURL},
		{loopback, "http://user@127.0.0.1/", egress.ErrURL},
		{loopback, "ftp://127.0.0.1/", egress.ErrURL},
		{loopback, "file:///etc/passwd", egress.ErrURL},
		{loopback, "//127.0.0.1/x", egress.ErrURL},
		{loopback, "http:127.0.0.1", egress.ErrURL},
		{loopback, "http://", egress.ErrURL},
		{loopback, "http://:80/", egress.ErrURL},
		{loopback, "http://127.0.0.1:0/", egress.ErrURL},
		{loopback, "http://127.0.0.1:99999/", egress.ErrURL},
		{loopback, "http://user:secret@127.0.0.1:port/", egress.ErrURL},
		{loopback, "http://a b/", egress.ErrURL},
		{loopback, "not a url", egress.ErrURL},
		{loopback, "http://127.0.0.1/%zz", egress.ErrURL},
		{private, "http://inner.example/", nil},
		{private, "http://[fd00::5]/", nil},
		{private, "http://11.0.0.1/", egress.ErrNotAllowed},
		{wide, "http://93.184.216.34/", nil},
		{wide, "http://[2001:db8::1]/", nil},
		{wide, "http://meta.example/", egress.ErrNotAllowed},
		{wide, "http://[64:ff9b::a9fe:a9fe]/", egress.ErrNotAllowed},
		{wide, "http://[fd00:ec2::254]/", egress.ErrNotAllowed},
		{wide, "http://0.0.0.0/", egress.ErrNotAllowed},
		{wide, "http://224.0.0.1/", egress.ErrNotAllowed},
		{wide, "http://255.255.255.255/", egress.ErrNotAllowed},
		{named, "http://169.254.10.7/", nil},
		{named, "http://169.254.169.254/", egress.ErrNotAllowed},
		{none, "http://127.0.0.1/", egress.ErrNotAllowed},
	} {
		err := c.policy.CheckURL(t.Context(), c.url)
		if c.want == nil {
			require.NoError(t, err, c.url)
			continue
		}
		require.ErrorIs(t, err, c.want, c.url)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestNewNamesABadNetwork(t *testing.T) {
	for _, bad := range []string{"10.0.0.0/33", "example.org", "", "10.0.0/8", "::ffff:10.0.0.0/90"} {
		_, err := egress.New(egress.Config{Networks: []string{bad}})
		require.ErrorContains(t, err, "neither a CIDR", bad)
	}
	p := policy(t, egress.Config{Networks: []string{" 10.0.0.7", "::ffff:192.168.0.0/112"}})
	require.NoError(t, p.CheckHost(t.Context(), "10.0.0.7"))
	require.NoError(t, p.CheckHost(t.Context(), "192.168.9.9"))
	require.ErrorIs(t, p.CheckHost(t.Context(), "10.0.0.8"), egress.ErrNotAllowed)
}

// The name passed the check, and then resolves elsewhere: the connection itself is refused.
func TestDialIsCheckedByAddress(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("was reached") }))
	defer server.Close()
	p := policy(t, egress.Config{NoLoopback: true, Networks: []string{"10.0.0.0/8"},
		Resolver: resolver{"localhost": {"10.0.0.1"}}})
	url := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	require.NoError(t, p.CheckURL(t.Context(), url))

	client := p.Client()
	defer client.CloseIdleConnections()
	response, err := client.Get(url)
	if err == nil {
		response.Body.Close()
	}
	require.ErrorIs(t, err, egress.ErrNotAllowed)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	server := httptest.NewServer(http.RedirectHandler("http://169.254.169.254/", http.StatusFound))
	defer server.Close()
	client := policy(t, egress.Config{}).Client()
	defer client.CloseIdleConnections()
	response, err := client.Get(server.URL)
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, http.StatusFound, response.StatusCode)
}

func TestProxiesOfTheEnvironmentAreIgnored(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	request, err := http.NewRequest(http.MethodGet, "http://10.0.0.1/", nil)
	require.NoError(t, err)
	transport := policy(t, egress.Config{}).Transport()
	require.Nil(t, transport.Proxy)
	_, err = transport.RoundTrip(request)
	require.ErrorIs(t, err, egress.ErrNotAllowed)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
}
