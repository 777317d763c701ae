package auth_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/services/auth"
)

// What the OWASP Cheat Sheets (Authentication, Session Management, JSON Web Token, Password Storage) say an attacker tries, one test each.

var b64 = base64.RawURLEncoding

func encoded(t testing.TB, v any) string {
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return b64.EncodeToString(b)
}

// parts are header and claims of a JWT, not verified.
func parts(t testing.TB, token string) (header, claims object) {
	t.Helper()
	fields := strings.Split(token, ".")
	require.Len(t, fields, 3)
	for i, into := range []*object{&header, &claims} {
		b, err := b64.DecodeString(fields[i])
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, into))
	}
	return header, claims
}

func kidOf(t testing.TB, token string) string {
	header, _ := parts(t, token)
	return header["kid"].(string)
}

type jwk struct{ Kid, X string }

func (n *node) jwks() []jwk {
	n.t.Helper()
	response, err := n.client.Get(n.url + "/auth/jwks")
	require.NoError(n.t, err)
	defer response.Body.Close()
	var set struct{ Keys []jwk }
	require.NoError(n.t, json.NewDecoder(response.Body).Decode(&set))
	return set.Keys
}

func (n *node) kids() (ids []string) {
	for _, k := range n.jwks() {
		ids = append(ids, k.Kid)
	}
	return ids
}

// unknownKey asks for a token of a key that nobody has.
func (n *node) unknownKey() {
	n.t.Helper()
	require.False(n.t, n.valid(signed(n.t, jwt.SigningMethodEdDSA, ed25519.NewKeyFromSeed(make([]byte, 32)),
		object{"kid": "nobody's", "typ": "at+jwt"}, object{"iss": "bannou", "sub": newID(), "sid": newID(), "exp": n.clock.now().Add(time.Hour).Unix()})))
}

// signed makes a JWT of any header and claims.
func signed(t testing.TB, method jwt.SigningMethod, key any, header, claims object) string {
	t.Helper()
	token := jwt.NewWithClaims(method, jwt.MapClaims(claims))
	for name, value := range header {
		token.Header[name] = value
	}
	text, err := token.SignedString(key)
	require.NoError(t, err)
	return text
}

func TestJWKSVerifiesTokens(t *testing.T) {
	n := start(t, auth.Config{})
	s := n.register("ada@example.org")
	public, err := b64.DecodeString(n.jwks()[0].X)
	require.NoError(t, err)
	token, err := jwt.Parse(s.access, func(*jwt.Token) (any, error) { return ed25519.PublicKey(public), nil }, jwt.WithValidMethods([]string{"EdDSA"}))
	require.NoError(t, err)
	require.Equal(t, n.kids()[0], token.Header["kid"])
}

func TestForgedTokens(t *testing.T) {
	n := start(t, auth.Config{})
	s, victim := n.register("ada@example.org"), n.register("bob@example.org")
	header, claims := parts(t, s.access)
	fields := strings.Split(s.access, ".")
	changed := func(o object, name string, value any) object {
		c := object{}
		for k, v := range o {
			c[k] = v
		}
		c[name] = value
		return c
	}
	_, mine, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	elliptical, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	other := start(t, auth.Config{}).register("ada@example.org") // of another node, with keys of its own
	public, err := b64.DecodeString(n.jwks()[0].X)
	require.NoError(t, err)

	forged := map[string]string{
		"claims of another":         fields[0] + "." + encoded(t, changed(changed(claims, "sub", victim.account), "sid", victim.session)) + "." + fields[2],
		"a later end":               fields[0] + "." + encoded(t, changed(claims, "exp", 9999999999)) + "." + fields[2],
		"another signature":         fields[0] + "." + fields[1] + "." + b64.EncodeToString(make([]byte, ed25519.SignatureSize)),
		"no signature":              fields[0] + "." + fields[1] + ".",
		"the signature of another":  fields[0] + "." + fields[1] + "." + strings.Split(victim.access, ".")[2],
		"a key of mine, its id":     signed(t, jwt.SigningMethodEdDSA, mine, header, claims),
		"a key of mine in jwk":      signed(t, jwt.SigningMethodEdDSA, mine, changed(header, "jwk", object{"kty": "OKP", "crv": "Ed25519", "x": b64.EncodeToString(mine.Public().(ed25519.PublicKey))}), claims),
		"a key of mine at jku":      signed(t, jwt.SigningMethodEdDSA, mine, changed(changed(header, "jku", n.url+"/auth/jwks"), "kid", "mine"), claims),
		"kid as a path":             signed(t, jwt.SigningMethodEdDSA, mine, changed(header, "kid", "../../../../dev/null"), claims),
		"kid as a query":            signed(t, jwt.SigningMethodEdDSA, mine, changed(header, "kid", "x' OR '1'='1"), claims),
		"kid of another type":       signed(t, jwt.SigningMethodEdDSA, mine, changed(header, "kid", []string{header["kid"].(string)}), claims),
		"another node's":            other.access,
		"HS256, public key":         signed(t, jwt.SigningMethodHS256, public, header, claims),
		"HS256, public key as text": signed(t, jwt.SigningMethodHS256, []byte(n.jwks()[0].X), header, claims),
		"HS512, empty key":          signed(t, jwt.SigningMethodHS512, []byte{}, header, claims),
		"ES256":                     signed(t, jwt.SigningMethodES256, elliptical, header, claims),
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "", "EDDSA", "HS256"} {
		h := changed(header, "alg", alg)
		forged["alg "+alg+", unsigned"] = encoded(t, h) + "." + encoded(t, claims) + "."
		forged["alg "+alg+", old signature"] = encoded(t, h) + "." + encoded(t, claims) + "." + fields[2]
	}
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims(claims)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	require.NoError(t, err)
	forged["alg none, by the library"] = unsigned
	require.True(t, n.valid(s.access))
	for name, token := range forged {
		require.False(t, n.valid(token), name)
		n.refused(401, "unauthorized", "/auth/sessions/list", `{}`, "Authorization", "Bearer "+token)
	}
}

// A token that is rightly signed and not an access token of here does not hold: who signs with the same keys for something else
// gives nobody a session. The key is read from the store, as an operator could.
func TestClaimsAreChecked(t *testing.T) {
	n := start(t, auth.Config{})
	s := n.register("ada@example.org")
	header, claims := parts(t, s.access)
	key := n.privateKey()
	edit := func(change func(header, claims object)) string {
		h, c := object{}, object{}
		for k, v := range header {
			h[k] = v
		}
		for k, v := range claims {
			c[k] = v
		}
		change(h, c)
		return signed(t, jwt.SigningMethodEdDSA, key, h, c)
	}
	require.True(t, n.valid(edit(func(_, _ object) {})))
	for name, change := range map[string]func(h, c object){
		"kind":               func(h, _ object) { h["typ"] = "JWT" },
		"issuer":             func(_, c object) { c["iss"] = "elsewhere" },
		"no issuer":          func(_, c object) { delete(c, "iss") },
		"no end":             func(_, c object) { delete(c, "exp") },
		"expired":            func(_, c object) { c["exp"] = n.clock.now().Add(-time.Minute).Unix() },
		"not yet":            func(_, c object) { c["nbf"] = n.clock.now().Add(time.Minute).Unix() },
		"issued in future":   func(_, c object) { c["iat"] = n.clock.now().Add(time.Minute).Unix() },
		"no session":         func(_, c object) { delete(c, "sid") },
		"session made up":    func(_, c object) { c["sid"] = newID() },
		"account made up":    func(_, c object) { c["sub"] = newID() },
		"session not a UUID": func(_, c object) { c["sid"] = strings.ToUpper(c["sid"].(string)) },
		"account not a UUID": func(_, c object) { c["sub"] = "a:" + c["sub"].(string) },
	} {
		require.False(t, n.valid(edit(change)), name)
	}
}

func TestMalformedTokens(t *testing.T) {
	n := start(t, auth.Config{})
	s := n.register("ada@example.org")
	fields := strings.Split(s.access, ".")
	for _, token := range []string{
		"x", ".", "..", "...", "a.b.c", "Bearer " + s.access, " " + s.access, s.access + " ", s.access + ".x", "\u0000", "🎲",
		fields[0] + "." + fields[1], fields[0] + ".!!!." + fields[2], s.access + "=", s.access + "\n",
		b64.EncodeToString([]byte("[]")) + "." + fields[1] + "." + fields[2],
		b64.EncodeToString([]byte(strings.Repeat("[", 10_000))) + "." + fields[1] + "." + fields[2],
		strings.Repeat("a", 10_000), strings.Repeat(".", 10_000), s.access + strings.Repeat("A", 4000),
	} {
		require.False(t, n.valid(token), "%.60q", token)
	}
	for _, token := range []string{"x", "brt_", "brt_" + strings.Repeat("A", 107), s.refresh[4:], s.refresh + "A", s.refresh + "\\n", "BRT_" + s.refresh[4:],
		s.refresh[:len(s.refresh)-1], s.access, strings.Repeat("A", 10_000)} {
		n.refused(401, "unauthorized", "/auth/refresh", `{"refreshToken":"`+token+`"}`)
		n.refused(401, "unauthorized", "/auth/logout", `{"refreshToken":"`+token+`"}`)
	}
	for _, header := range []string{"", "Bearer", "Bearer ", "bearer  " + s.access, "Basic " + s.access, s.access, "Bearer " + s.access + "," + s.access} {
		n.refused(401, "unauthorized", "/auth/sessions/list", `{}`, "Authorization", header)
	}
	request, err := http.NewRequest(http.MethodPost, n.url+"/auth/sessions/list", strings.NewReader(`{}`))
	require.NoError(t, err)
	request.Header["Authorization"] = []string{"Bearer " + s.access, "Bearer " + s.access}
	response, err := n.client.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, 401, response.StatusCode, "two tokens are none")
	require.True(t, n.valid(s.access))
}

func TestARefreshTokenIsUsedOnce(t *testing.T) {
	n := start(t, auth.Config{RefreshGrace: 30 * time.Second})
	s := n.register("ada@example.org")
	stolen := s.refresh
	n.clock.pass(time.Minute)
	next := n.refresh(s.refresh)
	require.Equal(t, s.session, next.session)
	require.NotEqual(t, stolen, next.refresh)
	n.clock.pass(31 * time.Second)
	n.refused(401, "unauthorized", "/auth/refresh", `{"refreshToken":"`+stolen+`"}`)
	n.dead(next) // two had it: nobody goes on
	n.invalidated(s.session, events.SessionInvalidatedReasonRevoked)
}

// However long ago it was used.
func TestAnOldRefreshTokenEndsTheSession(t *testing.T) {
	n := start(t, auth.Config{})
	s := n.register("ada@example.org")
	last := s
	for range 40 {
		n.clock.pass(time.Hour)
		last = n.refresh(last.refresh)
	}
	n.refused(401, "unauthorized", "/auth/refresh", `{"refreshToken":"`+s.refresh+`"}`)
	n.dead(last)
}

// Who did not get the answer asks again, and gets the same next token; several at once get one too. As soon as that is used, the one
// before is worth nothing, and ends the session.
func TestALostAnswerToARefresh(t *testing.T) {
	n := start(t, auth.Config{RefreshGrace: 30 * time.Second})
	s := n.register("ada@example.org")
	var wait sync.WaitGroup
	got := make([]tokens, 5)
	for i := range got {
		wait.Go(func() { got[i] = n.refresh(s.refresh) })
	}
	wait.Wait()
	for _, g := range got {
		require.Equal(t, got[0].refresh, g.refresh)
		require.True(t, n.valid(g.access))
	}
	last := n.refresh(got[0].refresh)
	n.refused(401, "unauthorized", "/auth/refresh", `{"refreshToken":"`+s.refresh+`"}`)
	n.dead(last)
}

// A token with the right ids and a made-up secret is refused, and does not end somebody's session.
func TestAMadeUpRefreshTokenEndsNothing(t *testing.T) {
	n := start(t, auth.Config{})
	s := n.register("ada@example.org")
	raw, err := b64.DecodeString(strings.TrimPrefix(s.refresh, "brt_"))
	require.NoError(t, err)
	_, _ = rand.Read(raw[32:])
	madeUp := "brt_" + b64.EncodeToString(raw)
	n.refused(401, "unauthorized", "/auth/refresh", `{"refreshToken":"`+madeUp+`"}`)
	n.refused(401, "unauthorized", "/auth/logout", `{"refreshToken":"`+madeUp+`"}`)
	require.True(t, n.valid(s.access))
	n.refresh(s.refresh)
}

// A session is never one that the caller brought along.
func TestFixation(t *testing.T) {
	n := start(t, auth.Config{})
	attacker := n.register("eve@example.org")
	n.register("ada@example.org")
	victim := tokensOf(n.must("/auth/login", `{"email":"ada@example.org","password":"`+password+`","sessionId":"`+attacker.session+`","refreshToken":"`+attacker.refresh+`"}`,
		"Authorization", "Bearer "+attacker.access, "Cookie", "sessionId="+attacker.session, "X-Session-Id", attacker.session))
	require.NotEqual(t, attacker.session, victim.session)
	require.NotEqual(t, attacker.account, victim.account)
	again := n.login("ada@example.org")
	require.NotEqual(t, victim.session, again.session, "each login is a session of its own")
	require.Equal(t, object{"terminated": false}, n.must("/auth/sessions/terminate", `{"sessionId":"`+victim.session+`"}`, bearerOf(attacker)...))
	require.True(t, n.valid(victim.access), "nobody ends another's session")
}

// What is answered, and what is done for it, is the same whether there is an account or not.
func TestEnumeration(t *testing.T) {
	n := start(t, auth.Config{})
	n.register("ada@example.org")
	instance := regexp.MustCompile(`"instance":"[^"]*"`)
	type seen struct {
		status  int
		body    string
		headers string
		hashes  int64
		asked   int
	}
	try := func(path, body string) seen {
		hashes, asked := n.hashes(), n.accounts.count()
		a := n.post(path, body)
		var names []string
		for name := range a.header {
			names = append(names, name)
		}
		require.NotContains(t, a.raw, "ada@example.org")
		return seen{a.status, instance.ReplaceAllString(a.raw, ""), fmt.Sprint(len(names), a.header.Get("WWW-Authenticate")), n.hashes() - hashes, n.accounts.count() - asked}
	}
	there, notThere := try("/auth/login", loginBody("ada@example.org", "a wrong one")), try("/auth/login", loginBody("bob@example.org", "a wrong one"))
	require.Equal(t, there, notThere)
	require.Equal(t, []any{401, int64(1), 1}, []any{there.status, there.hashes, there.asked}, "a hash is made either way")
	require.Equal(t, there, try("/auth/login", loginBody("no address", "a wrong one")))

	reset := func(email string) seen {
		s := try("/auth/password/request-reset", `{"email":"`+email+`"}`)
		s.asked = 0
		return s
	}
	require.Equal(t, reset("ada@example.org"), reset("bob@example.org"))
}

func TestBruteForceOnAnAccount(t *testing.T) {
	n := start(t, auth.Config{Throttle: auth.Throttle{PerAccount: 5, PerAddress: 1000, Window: time.Minute}})
	n.register("ada@example.org")
	for _, email := range []string{"ada@example.org", "nobody@example.org"} {
		before := n.hashes()
		var refused, throttled atomic.Int64
		var wait sync.WaitGroup
		for i := range 20 { // at once, which is no way around it
			wait.Go(func() {
				switch a := n.post("/auth/login", loginBody(email, fmt.Sprintf("guess %d", i))); a.status {
				case 401:
					refused.Add(1)
				case 429:
					throttled.Add(1)
					require.NotEmpty(t, a.header.Get("Retry-After"))
				}
			})
		}
		wait.Wait()
		require.EqualValues(t, 20, refused.Load()+throttled.Load())
		require.LessOrEqual(t, refused.Load(), int64(5))
		require.LessOrEqual(t, n.hashes()-before, int64(5), "a try that is throttled costs no hash")
		n.post("/auth/login", loginBody(email, "the rest of the five"))
	}
	for n.post("/auth/login", loginBody("ada@example.org", "one more guess")).status == 401 { // until the five are over
	}
	a := n.refused(429, "too_many_requests", "/auth/login", loginBody("ADA@example.org", password))
	require.NotEqual(t, "0", a.header.Get("Retry-After"))
	n.clock.pass(time.Minute)
	n.login("ada@example.org")
	for range 4 {
		n.refused(401, "unauthorized", "/auth/login", loginBody("ada@example.org", "wrong again"))
	}
	n.login("ada@example.org") // which ends the count
	n.refused(401, "unauthorized", "/auth/login", loginBody("ada@example.org", "wrong again"))
}

// One password tried on many accounts.
func TestBruteForceFromAnAddress(t *testing.T) {
	n := start(t, auth.Config{Throttle: auth.Throttle{PerAddress: 5}})
	n.register("ada@example.org")
	for range 10 {
		n.login("ada@example.org") // those that succeed do not count
	}
	for i := range 5 {
		n.refused(401, "unauthorized", "/auth/login", loginBody(fmt.Sprintf("p%d@example.org", i), "Password1"), "X-Forwarded-For", fmt.Sprintf("10.0.0.%d", i))
	}
	n.refused(429, "too_many_requests", "/auth/login", loginBody("ada@example.org", password), "X-Forwarded-For", "10.9.9.9")
	for range 4 {
		n.post("/auth/register", loginBody("ada@example.org", password))
	}
	n.refused(429, "too_many_requests", "/auth/register", loginBody("new@example.org", password))
}

func TestLettersAreFew(t *testing.T) {
	n := start(t, auth.Config{Throttle: auth.Throttle{Letters: 2}})
	n.register("ada@example.org")
	bob := n.register("bob@example.org")
	for range 6 {
		n.must("/auth/password/request-reset", `{"email":"ada@example.org"}`)
	}
	n.must("/auth/password/request-reset", `{"email":"bob@example.org"}`)
	hears(n.world, func(e *events.PasswordResetRequestedEvent) bool { return e.AccountID == bob.account }) // and so all before it
	sent := 0
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.heard {
		if l, is := e.(*events.PasswordResetRequestedEvent); is && l.Email == "ada@example.org" {
			sent++
		}
	}
	require.LessOrEqual(t, sent, 2)
	require.Positive(t, sent)
}

func TestOversized(t *testing.T) {
	n := start(t, auth.Config{})
	n.register("ada@example.org")
	before := n.hashes()
	long := strings.Repeat("x", 12<<10)
	n.refused(401, "unauthorized", "/auth/login", loginBody("ada@example.org", long))
	n.refused(401, "unauthorized", "/auth/login", loginBody(long+"@example.org", password))
	n.refused(400, "invalid_member", "/auth/register", loginBody("b@example.org", long))
	n.refused(400, "invalid_member", "/auth/register", loginBody(long+"@example.org", password))
	require.Equal(t, before, n.hashes(), "what is too long costs no hash")
	for _, path := range []string{"register", "login", "validate", "refresh", "logout", "password/change", "password/request-reset", "password/confirm-reset"} {
		n.refused(413, "body_too_large", "/auth/"+path, `{"password":"`+strings.Repeat("x", 64<<10)+`"}`)
	}
}

// Whatever happens, the log has no password and no token, nor has an answer that is not for their owner.
func TestNothingSecretIsLogged(t *testing.T) {
	n := start(t, auth.Config{Throttle: auth.Throttle{PerAccount: 2}})
	s := n.register("ada@example.org")
	secrets := []string{password, s.access, s.refresh, "a wrong password", "a new password"}
	secrets = append(secrets, n.login("ada@example.org").refresh)
	for range 4 {
		n.post("/auth/login", loginBody("ada@example.org", "a wrong password"))
	}
	n.clock.pass(time.Hour)
	n.post("/auth/validate", `{"accessToken":"`+s.access+`"}`)
	next := n.refresh(s.refresh)
	secrets = append(secrets, next.access, next.refresh)
	n.clock.pass(time.Minute)
	n.post("/auth/refresh", `{"refreshToken":"`+s.refresh+`"}`) // used twice
	n.must("/auth/password/request-reset", `{"email":"ada@example.org"}`)
	letter := hears(n.world, func(*events.PasswordResetRequestedEvent) bool { return true })
	secrets = append(secrets, letter.Token)
	n.must("/auth/password/confirm-reset", `{"token":"`+letter.Token+`","newPassword":"a new password"}`)
	n.post("/auth/sessions/list", `{`, "Authorization", "Bearer "+next.access)
	log := n.log.String()
	require.Contains(t, log, "a refresh token was used twice")
	require.Contains(t, log, "/auth/login", "requests are logged")
	for _, secret := range secrets {
		require.NotContains(t, log, secret)
		for _, part := range strings.Split(secret, ".") {
			if len(part) > 40 {
				require.NotContains(t, log, part[len(part)-40:])
			}
		}
	}
	require.NotContains(t, log, "$argon2id$")
}

// The stores have digests of refresh tokens and letters, and hashes of passwords.
func TestNothingSecretIsKept(t *testing.T) {
	n := start(t, auth.Config{})
	s := n.register("ada@example.org")
	next := n.refresh(s.refresh)
	kept := n.kept(s.account)
	require.Contains(t, kept, "$argon2id$")
	for _, token := range []string{s.refresh, next.refresh} {
		raw, err := b64.DecodeString(strings.TrimPrefix(token, "brt_"))
		require.NoError(t, err)
		for _, secret := range [][]byte{raw[32:48], raw[48:]} {
			require.NotContains(t, kept, base64.StdEncoding.EncodeToString(secret)[:16])
			require.NotContains(t, kept, b64.EncodeToString(secret)[:16])
		}
	}
	require.NotContains(t, kept, password)
	require.NotContains(t, kept, next.access)
}

// An answer with tokens is for nobody's cache.
func TestAnswersAreNotCached(t *testing.T) {
	n := start(t, auth.Config{})
	n.register("ada@example.org")
	require.Equal(t, "no-store", n.post("/auth/login", loginBody("ada@example.org", password)).header.Get("Cache-Control"))
}
