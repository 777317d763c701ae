package guard_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

const (
	meshToken = "secret-of-mesh-0123456789"
	nextToken = "secret-of-mesh-which-comes-next"
	gameToken = "secret-of-game-0123456789"
	webToken  = "secret-of-web-0123456789"
)

func newGuard(t *testing.T, cfg guard.Config) *guard.Guard {
	t.Helper()
	if cfg.AppID == "" {
		cfg.AppID = "bannou"
	}
	if cfg.Apps == nil {
		apps, err := guard.NewTokens(map[string][]string{"game": {gameToken}, "web": {webToken}})
		require.NoError(t, err)
		cfg.Apps = apps
	}
	g, err := guard.New(cfg)
	require.NoError(t, err)
	return g
}

// admit asks for a path with headers in turn: name, value, name, value.
func admit(t *testing.T, g *guard.Guard, path, pattern string, headers ...string) (*http.Request, error) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, http.NoBody)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	admitted, err := g.Admit(r, pattern)
	if err != nil {
		require.NotContains(t, err.Error(), "secret-of")
		require.Equal(t, problem.From(err).Code == problem.Unauthorized, statusOf(t, err) == 401)
	}
	return admitted, err
}

// statusOf is what the problem is answered with, and that it is answered well.
func statusOf(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return http.StatusOK
	}
	w := httptest.NewRecorder()
	problem.Write(w, err)
	require.Equal(t, w.Code == 401, w.Header().Get("WWW-Authenticate") != "")
	require.Equal(t, problem.ContentType, w.Header().Get("Content-Type"))
	return w.Code
}

func TestWhoCalls(t *testing.T) {
	g := newGuard(t, guard.Config{Token: meshToken})
	const bearer, token, app = "Authorization", guard.TokenHeader, guard.AppHeader
	for name, c := range map[string]struct {
		headers []string
		status  int
		caller  string
	}{
		"nothing":                       {nil, 401, ""},
		"a name alone":                  {[]string{app, "game"}, 401, ""},
		"a wrong token":                 {[]string{token, "wrong-0123456789abcdef"}, 401, ""},
		"an empty token":                {[]string{token, ""}, 401, ""},
		"a wrong one beside a right":    {[]string{token, "wrong-0123456789abcdef", bearer, "Bearer " + meshToken}, 401, ""},
		"two tokens":                    {[]string{token, meshToken, token, meshToken}, 401, ""},
		"a part of the token":           {[]string{token, meshToken[:20]}, 401, ""},
		"a wrong bearer":                {[]string{bearer, "Bearer wrong-0123456789abcdef"}, 401, ""},
		"another scheme":                {[]string{bearer, "Basic " + meshToken}, 401, ""},
		"two authorizations":            {[]string{bearer, "Bearer " + meshToken, bearer, "Bearer " + meshToken}, 401, ""},
		"the name everyone has":         {[]string{token, "*"}, 401, ""},
		"the mesh's token":              {[]string{token, meshToken}, 200, ""},
		"the mesh's token and a name":   {[]string{token, meshToken, app, "accounts"}, 200, "accounts"},
		"with a name that is none":      {[]string{token, meshToken, app, "No Name"}, 200, ""},
		"with everyone's name":          {[]string{token, meshToken, app, "*"}, 200, ""},
		"with two names":                {[]string{token, meshToken, app, "game", app, "web"}, 200, ""},
		"an app's token":                {[]string{token, gameToken}, 200, "game"},
		"an app's, under another name":  {[]string{token, gameToken, app, "web"}, 200, "game"},
		"the mesh's as a bearer":        {[]string{bearer, "bearer " + meshToken, app, "accounts"}, 200, "accounts"},
		"an app's as a bearer":          {[]string{bearer, "Bearer " + webToken}, 200, "web"},
		"and something for the target":  {[]string{token, webToken, bearer, "Bearer anything"}, 200, "web"},
		"and another app's, for stores": {[]string{token, webToken, bearer, "Bearer " + gameToken}, 200, "web"},
	} {
		r, err := admit(t, g, "/state/get", "POST /state/get", c.headers...)
		require.Equal(t, c.status, statusOf(t, err), name)
		if err == nil {
			require.Equal(t, c.caller, guard.Caller(r.Context()), name)
			require.Empty(t, r.Header.Values(token), "%s: it ends here", name)
			require.Empty(t, r.Header.Values(app), "%s: it ends here", name)
			require.Equal(t, len(c.headers) > 0 && strings.Contains(strings.Join(c.headers, " "), bearer), r.Header.Get(bearer) != "", name)
		}
		_, err = admit(t, g, "/nothing", "", c.headers...)
		require.Equal(t, c.status, statusOf(t, err), "%s: also where there is nothing", name)
	}
}

func TestWhatItShowsToOthersIsWhatTheyTake(t *testing.T) {
	g := newGuard(t, guard.Config{Token: meshToken, AppID: "accounts"})
	h := http.Header{guard.TokenHeader: {"somebody else's"}, guard.AppHeader: {"web"}}
	g.Authorize(h)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", http.NoBody)
	r.Header = h
	r, err := newGuard(t, guard.Config{Token: meshToken}).Admit(r, "/x")
	require.NoError(t, err)
	require.Equal(t, "accounts", guard.Caller(r.Context()))

	// Within the process there is nothing to show.
	var within error
	g.Local(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		r, within = g.Admit(r, "/x")
		if app := guard.Caller(r.Context()); app != "accounts" {
			t.Errorf("the caller is %q", app)
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", http.NoBody))
	require.NoError(t, within)
}

func TestNilLetsEveryoneIn(t *testing.T) {
	g, err := guard.New(guard.Config{AppID: "bannou"})
	require.NoError(t, err)
	require.Nil(t, g)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", http.NoBody)
	r.Header.Set(guard.TokenHeader, meshToken)
	admitted, err := g.Admit(r, "/x")
	require.NoError(t, err)
	require.Same(t, r, admitted)
	require.Empty(t, r.Header, "a token goes no further")
	h := http.Header{}
	g.Authorize(h)
	require.Empty(t, h)
	require.Nil(t, g.Server())
	require.Nil(t, g.Client())
}

func TestTheMeshsTokenIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	write(meshToken + "\n")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := newGuard(t, guard.Config{TokenFile: file, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		takes := func(token string) bool {
			_, err := admit(t, g, "/x", "/x", guard.TokenHeader, token)
			return err == nil
		}
		shows := func() string {
			h := http.Header{}
			g.Authorize(h)
			return h.Get(guard.TokenHeader)
		}
		require.True(t, takes(meshToken))
		require.False(t, takes(nextToken))

		write(meshToken + "\n" + nextToken + "\n") // all take both
		require.False(t, takes(nextToken), "files are not read for each request")
		<-time.After(time.Second)
		require.True(t, takes(nextToken))
		require.True(t, takes(meshToken))
		require.Equal(t, meshToken, shows())

		write(nextToken + "\n" + meshToken) // all show the new one
		<-time.After(time.Second)
		require.Equal(t, nextToken, shows())

		write("short")
		<-time.After(time.Second)
		require.True(t, takes(meshToken), "what cannot be used changes nothing")
		require.NoError(t, os.Remove(file))
		<-time.After(time.Second)
		require.True(t, takes(meshToken))
		require.Contains(t, log.String(), "cannot be used")

		write(nextToken)
		<-time.After(time.Second)
		require.True(t, takes(nextToken))
		require.False(t, takes(meshToken))
		require.NotContains(t, log.String(), "secret-of")
	})
}

func TestTokensOfAppsAreReadAgain(t *testing.T) {
	game, web := filepath.Join(t.TempDir(), "game"), filepath.Join(t.TempDir(), "web")
	require.NoError(t, os.WriteFile(game, []byte(gameToken), 0o600))
	require.NoError(t, os.WriteFile(web, []byte(webToken), 0o600))
	synctest.Test(t, func(t *testing.T) {
		tokens, err := guard.TokenFiles(map[string]string{"game": game, "web": web}, nil)
		require.NoError(t, err)
		require.True(t, tokens.Has("web"))
		require.False(t, tokens.Has("mesh"))
		require.Equal(t, "game", tokens.App(gameToken))
		require.NoError(t, os.WriteFile(game, []byte("secret-of-game-next-0123456789"), 0o600))
		<-time.After(time.Second)
		require.Empty(t, tokens.App(gameToken))
		require.Equal(t, "game", tokens.App("secret-of-game-next-0123456789"))
		require.Equal(t, "web", tokens.App(webToken))
	})
	_, err := guard.TokenFiles(map[string]string{"game": filepath.Join(t.TempDir(), "none")}, nil)
	require.ErrorContains(t, err, `app "game"`)
}

func TestTokensAreCheckedWhenTheyAreRead(t *testing.T) {
	for name, c := range map[string]struct {
		tokens map[string][]string
		says   []string
	}{
		"no token":           {map[string][]string{"game": {}}, []string{`"game" has no token`}},
		"an empty token":     {map[string][]string{"game": {""}}, []string{`"game"`, "16"}},
		"a short token":      {map[string][]string{"game": {gameToken[:15]}}, []string{`"game"`, "15", "16"}},
		"two with one":       {map[string][]string{"game": {gameToken}, "web": {webToken, gameToken}}, []string{`"web"`, `"game"`}},
		"one twice":          {map[string][]string{"game": {gameToken, gameToken}}, []string{`"game"`}},
		"blanks":             {map[string][]string{"game": {"game token 0123456789"}}, []string{`"game"`, "blanks"}},
		"no ASCII":           {map[string][]string{"game": {"gäme-token-0123456789"}}, []string{`"game"`}},
		"everyone is no app": {map[string][]string{"*": {gameToken}}, []string{`"*"`}},
	} {
		_, err := guard.NewTokens(c.tokens)
		require.Error(t, err, name)
		for _, says := range c.says {
			require.ErrorContains(t, err, says, name)
		}
		require.NotContains(t, err.Error(), "secret-of", name)
		require.NotContains(t, err.Error(), "0123456789", name)
	}
}

func TestConfigurationsThatGuardNothingOrNobody(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  guard.Config
		says string
	}{
		"rules without names":  {guard.Config{Rules: map[string][]string{"state": {"game"}}}, "nothing shows who calls"},
		"a short token":        {guard.Config{Token: "short"}, "16"},
		"a file without one":   {guard.Config{TokenFile: os.DevNull}, "holds no token"},
		"no file":              {guard.Config{TokenFile: filepath.Join(t.TempDir(), "none")}, "cannot read the token"},
		"a rule about no name": {guard.Config{Token: meshToken, Rules: map[string][]string{"State!": nil}}, "mesh.access.State!"},
		"a rule for no name":   {guard.Config{Token: meshToken, Rules: map[string][]string{"state": {"A Game"}}}, `"A Game"`},
	} {
		_, err := guard.New(c.cfg)
		require.ErrorContains(t, err, c.says, name)
		require.NotContains(t, err.Error(), "secret-of", name)
	}
}

// A request that is not let in is refused before the body is read.
func TestRefusalsReadNoBody(t *testing.T) {
	g := newGuard(t, guard.Config{Token: meshToken})
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/x", readerFunc(func([]byte) (int, error) {
		return 0, errors.New("was read")
	}))
	_, err := g.Admit(r, "/x")
	require.Equal(t, 401, statusOf(t, err))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
