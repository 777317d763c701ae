package facade

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTopicScopes(t *testing.T) {
	for _, c := range []struct {
		metadata              map[string]string
		publishes, subscribes []string
	}{
		{nil, nil, nil},
		{map[string]string{"allowedtopics": "a, b"}, []string{"a", "b"}, []string{"a", "b"}},
		{map[string]string{"publishingscopes": "app=a;other=b"}, []string{"a"}, nil},
		{map[string]string{"subscriptionscopes": "app="}, nil, []string{}},
		{map[string]string{"allowedtopics": "a,b", "publishingscopes": "app=a,c"}, []string{"a"}, []string{"a", "b"}},
		{map[string]string{"allowedtopics": "a,b", "protectedtopics": "b"}, []string{"a"}, []string{"a"}},
		{map[string]string{"publishingscopes": "other=b"}, nil, nil},
		{map[string]string{"publishingscopes": "app=a;other=b;app=c"}, []string{"a", "c"}, nil},
	} {
		publishes, subscribes, _ := TopicScopes(c.metadata, "app")
		require.Equal(t, c.publishes, publishes, c.metadata)
		require.Equal(t, c.subscribes, subscribes, c.metadata)
	}
}

// send makes a request, and returns its status.
func statusOf(t *testing.T, s *Service, path string, with func(*http.Request)) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Addr().String()+path, strings.NewReader(`{"a":1}`))
	require.NoError(t, err)
	if with != nil {
		with(request)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode
}

// An app publishes to what it may, and a time to live that is none is its mistake.
func TestLimitedTopics(t *testing.T) {
	s, _ := newService(t, Config{PubSubs: map[string]PubSub{"local": {MayPublish: []string{"mine"}}}}, noSubscriptions, nil)
	require.Equal(t, http.StatusNoContent, statusOf(t, s, "/v1.0/publish/local/mine", nil))
	require.Equal(t, http.StatusForbidden, statusOf(t, s, "/v1.0/publish/local/others", nil))
	require.Equal(t, http.StatusNoContent, statusOf(t, s, "/v1.0/publish/local/mine?metadata.ttlInSeconds=10", nil))
	for _, ttl := range []string{"soon", "0", "-1"} {
		require.Equal(t, http.StatusBadRequest, statusOf(t, s, "/v1.0/publish/local/mine?metadata.ttlInSeconds="+ttl, nil))
	}
}

// A topic that is protected is for those that a scope names, also where no other topic is limited, and no pattern reaches it.
func TestProtectedTopics(t *testing.T) {
	limited := func(appID string) PubSub {
		metadata := map[string]string{"protectedtopics": "secret", "publishingscopes": "named=secret", "subscriptionscopes": "named=secret"}
		var p PubSub
		p.MayPublish, p.MaySubscribe, p.Protected = TopicScopes(metadata, appID)
		return p
	}
	s, _ := newService(t, Config{PubSubs: map[string]PubSub{"local": limited("app")}}, noSubscriptions, nil)
	require.Equal(t, http.StatusForbidden, statusOf(t, s, "/v1.0/publish/local/secret", nil))
	require.Equal(t, http.StatusNoContent, statusOf(t, s, "/v1.0/publish/local/orders", nil))
	for _, topic := range []string{"secret", "#", "*"} {
		_, err := s.deliveryOf(Subscription{PubSub: "local", Topic: topic}, s.channel)
		require.Error(t, err, topic)
	}
	_, err := s.deliveryOf(Subscription{PubSub: "local", Topic: "orders", DeadLetterTopic: "secret"}, s.channel)
	require.Error(t, err)
	_, err = s.deliveryOf(Subscription{PubSub: "local", Topic: "orders"}, s.channel)
	require.NoError(t, err)
	s, _ = newService(t, Config{PubSubs: map[string]PubSub{"local": limited("named")}}, noSubscriptions, nil)
	require.Equal(t, http.StatusNoContent, statusOf(t, s, "/v1.0/publish/local/secret", nil))
}

// Without a token, a page of another site gets nothing through a browser on the machine: neither by its own name for loopback nor with its Origin.
func TestPagesOfOtherSites(t *testing.T) {
	for name, token := range map[string]string{"no token": "", "token": "secret"} {
		s, _ := newService(t, Config{Token: token}, noSubscriptions, nil)
		for _, c := range []struct {
			host, origin string
			foreign      bool
		}{
			{"", "", false}, {"localhost:3501", "", false}, {"[::1]:3501", "", false}, {"evil.example:3501", "", true}, {"127.0.0.1.evil.example", "", true},
			{"", "http://evil.example", true}, {"", "null", true}, {"", "http://localhost:8080", false}, {"evil.example", "http://evil.example", true},
		} {
			want := http.StatusNoContent
			if c.foreign && token == "" {
				want = http.StatusForbidden
			}
			require.Equal(t, want, statusOf(t, s, "/v1.0/publish/local/orders", func(r *http.Request) {
				r.Host = c.host
				if c.origin != "" {
					r.Header.Set("Origin", c.origin)
				}
				r.Header.Set("Dapr-Api-Token", token)
			}), "%s: host %q, origin %q", name, c.host, c.origin)
		}
	}
	s, _ := newService(t, Config{}, noSubscriptions, nil)
	for site, want := range map[string]int{"cross-site": http.StatusForbidden, "same-site": http.StatusForbidden, "same-origin": http.StatusNoContent, "none": http.StatusNoContent} {
		require.Equal(t, want, statusOf(t, s, "/v1.0/publish/local/orders", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", site) }), site)
	}
}
