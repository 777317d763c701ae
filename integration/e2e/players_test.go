package e2e

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/gorilla/websocket"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/connect/client"
)

// A stage is where the story of players is told.
type stage struct {
	suite
	gateways []string                                 // URLs; one of them is there at a time at least
	harm     func(t *testing.T, holds string)         // kills services, and the gateway that holds a connection; nil: nobody is killed
	traces   func(t *testing.T, word string) []string // where a word stands in what servers keep; nil: they are not looked into
}

// TestPlayers is the story of two players, in every shape.
func TestPlayers(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		n := startNode(t, quick()...)
		play(t, stage{suite: direct(n.url), gateways: []string{n.url}})
	})
	t.Run("one process on real servers", func(t *testing.T) {
		t.Parallel()
		place, traces := placeOfPlayers(t)
		args := append(quick(), place...)
		here, there := freeAddress(t), freeAddress(t)
		n := launch(t, here, args...)
		n.waitReady(t)
		s := stage{suite: direct(n.url), gateways: []string{n.url, "http://" + there}, traces: traces}
		s.at = func(_, method string) string { return n.url + "/" + method }
		s.harm = func(t *testing.T, _ string) {
			n.kill()
			n = launch(t, there, args...)
			n.waitReady(t)
		}
		play(t, s)
	})
	t.Run("six processes on the same servers", func(t *testing.T) {
		t.Parallel()
		play(t, splitStage(t))
	})
	t.Run("external", func(t *testing.T) {
		s := stage{suite: external(t)}
		if s.gateways = strings.Split(os.Getenv("BANNOU_TEST_GATEWAY"), ","); s.gateways[0] == "" {
			s.gateways = s.nodes
		}
		play(t, s)
	})
}

// splitStage has services in processes of their own, the gateway in two.
func splitStage(t *testing.T) stage {
	place, traces := placeOfPlayers(t)
	start := func(address, services, app, instance string) *node {
		return launch(t, address, append(append(quick(), place...), "--services", services, "--app-id", app, "--instance-id", instance)...)
	}
	hub := start(freeAddress(t), "messaging,state,mesh,events", "bannou", "hub")
	hub.waitReady(t)
	status, answer := post(t, hub.url+"/orchestrator/service-mappings/set", object{"mappings": object{
		"accounts": "accounts-node", "auth": "auth-node", "permissions": "auth-node", "game-session": "games-node", "sagas": "games-node",
	}})
	require.Equal(t, http.StatusOK, status, "%v", answer)
	games := start(freeAddress(t), "game-session,sagas", "games-node", "games-1")
	gateways := map[string]*node{}
	s := stage{suite: throughMesh(hub.url), traces: traces}
	for _, n := range []*node{games, start(freeAddress(t), "accounts", "accounts-node", "accounts"), start(freeAddress(t), "auth,permissions", "auth-node", "auth")} {
		n.waitReady(t)
	}
	for _, name := range []string{"gateway-1", "gateway-2"} {
		gateways[name] = start(freeAddress(t), "connect", "gateway", name)
		gateways[name].waitReady(t)
		s.gateways = append(s.gateways, gateways[name].url)
	}
	s.harm = func(t *testing.T, holds string) {
		gateways[holds].kill()
		games.kill()
		start(freeAddress(t), "game-session,sagas", "games-node", "games-2").waitReady(t)
	}
	return s
}

// placeOfPlayers names servers to nodes, and looks into them.
func placeOfPlayers(t *testing.T) (args []string, traces func(t *testing.T, word string) []string) {
	mysql, cache := servers.MySQL(t), servers.Redis(t)
	args = []string{"--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", servers.RabbitMQ(t).URL,
		"--state-redis-url", cache.URL, "--state-mysql-dsn", mysql.DSN}
	return args, func(t *testing.T, word string) []string {
		return append(inTables(t, mysql.DSN, word), inKeys(t, cache.URL, word)...)
	}
}

// inTables are the tables of a database with a word in a row.
func inTables(t *testing.T, dsn, word string) (found []string) {
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	defer db.Close()
	tables, err := db.Query("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()")
	require.NoError(t, err)
	defer tables.Close()
	var columns [][2]string
	for tables.Next() {
		var c [2]string
		require.NoError(t, tables.Scan(&c[0], &c[1]))
		columns = append(columns, c)
	}
	require.NoError(t, tables.Err())
	require.NotEmpty(t, columns)
	for _, c := range columns {
		var n int
		query := fmt.Sprintf("SELECT COUNT(*) FROM `%s` WHERE LOCATE(?, CAST(`%s` AS BINARY)) > 0", c[0], c[1])
		require.NoError(t, db.QueryRow(query, word).Scan(&n), query)
		if n > 0 {
			found = append(found, fmt.Sprintf("%d rows of %s.%s", n, c[0], c[1]))
		}
	}
	return found
}

// inKeys are the keys of a Redis with a word in them or in their values.
func inKeys(t *testing.T, url, word string) (found []string) {
	o, err := redis.ParseURL(url)
	require.NoError(t, err)
	c := redis.NewClient(o)
	defer c.Close()
	keys, err := c.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	for _, key := range keys {
		value, err := c.Dump(t.Context(), key).Result() // strings of it as they are, but for long ones that are compressed
		if err == nil && strings.Contains(key+value, word) {
			found = append(found, "the key "+key)
		}
	}
	return found
}

// A playing is a player with a client.
type playing struct {
	t      *testing.T
	s      stage
	email  string
	tokens login
	client *client.Client
}

const playersPassword = "correct horse battery"

// enter registers a player, waits until the account is whole, and connects.
func enter(t *testing.T, s stage, name string) *playing {
	p := &playing{t: t, s: s, email: fmt.Sprintf("%s-%d@example.org", name, time.Now().UnixNano())}
	p.tokens = loginFrom(t, s.must(t, "auth/register", object{"email": p.email, "password": playersPassword, "displayName": name}))
	s.ends(t, "account-registration", p.tokens.AccountID, "completed")
	p.tokens = loginFrom(t, s.must(t, "auth/login", object{"email": p.email, "password": playersPassword}))
	var err error
	p.client, err = client.Dial(t.Context(), client.Config{URLs: s.gateways, AccessToken: p.tokens.AccessToken})
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.client.Close() })
	require.Equal(t, p.tokens.SessionID, p.client.SessionID())
	return p
}

// ends waits until a saga has ended so.
func (s stage) ends(t *testing.T, saga, key, how string) {
	t.Helper()
	var answer object
	require.Eventually(t, func() bool {
		var status int
		if status, answer = s.call(t, "sagas/get", object{"saga": saga, "key": key}); status != http.StatusOK {
			return false
		}
		return answer["instance"].(object)["status"] == how
	}, patience, 20*time.Millisecond, "%s %s: %v", saga, key, &answer)
}

// calls asks for something through the gateway, again where the connection was lost.
func (p *playing) calls(path string, body object) object {
	p.t.Helper()
	answer, _ := p.asks(path, body)
	return answer
}

// asks is calls that says whether it asked once.
func (p *playing) asks(path string, body object) (answer object, once bool) {
	p.t.Helper()
	raw, err := json.Marshal(body)
	require.NoError(p.t, err)
	ctx, cancel := context.WithTimeout(p.t.Context(), 60*time.Second)
	defer cancel()
	require.NoError(p.t, p.client.WaitFor(ctx, "POST", path, true), "%s may not call %s", p.email, path)
	var r client.Response
	times := 0
	require.Eventually(p.t, func() bool {
		times++
		var err error
		r, err = p.client.Call(ctx, "POST", path, raw)
		return err == nil && r.Code < connect.CodeFailed
	}, patience, 50*time.Millisecond, "%s calls %s", p.email, path)
	require.Equal(p.t, connect.CodeOK, r.Code, "%s: %s", path, r.Body)
	require.NoError(p.t, json.Unmarshal(r.Body, &answer))
	return answer, times == 1
}

// gets is the next event of a name.
func (p *playing) gets(name string) object {
	p.t.Helper()
	for late := time.After(60 * time.Second); ; {
		select {
		case e := <-p.client.Events():
			if e.Name == name {
				var body object
				require.NoError(p.t, json.Unmarshal(e.Body, &body))
				return body
			}
		case <-late:
			p.t.Fatalf("%s does not get %s", p.email, name)
		}
	}
}

// may waits until the player may call something, or may not.
func (p *playing) may(path string, allowed bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 60*time.Second)
	defer cancel()
	require.NoError(p.t, p.client.WaitFor(ctx, "POST", path, allowed), "%s, %s: %t", p.email, path, allowed)
}

// sits takes a seat.
func (p *playing) sits(table any) {
	p.t.Helper()
	asked, once := p.asks("/game-session/join", object{"gameSessionId": table})
	invited := p.gets("game-session-invitation")
	if once { // else an earlier one may have been done, whose answer was lost
		require.Equal(p.t, asked["joinId"], invited["joinId"])
	}
	p.calls("/game-session/answer-join", object{"joinId": invited["joinId"], "accept": true})
	p.may(tableTalk, true) // the state of its session
	p.s.ends(p.t, "game-session-join", invited["joinId"].(string), "completed")
}

// tableTalk is an endpoint of a program, for those who sit.
const tableTalk = "/table/talk"

// play is the story.
func play(t *testing.T, s stage) {
	s.must(t, "permissions/services/register", object{"serviceName": "table", "endpoints": []object{
		{"method": "POST", "path": tableTalk, "permissions": []object{{"role": "user", "states": object{"game-session": "joined"}}}},
	}})
	ada, bob := enter(t, s, "ada"), enter(t, s, "bob")
	ada.may(tableTalk, false)
	table := ada.calls("/game-session/create", object{"seats": 2, "name": "chess"})["gameSessionId"]
	ada.sits(table)
	bob.sits(table)
	seated := bob.calls("/game-session/get", object{"gameSessionId": table})["players"].([]any)
	require.Len(t, seated, 2)

	// A service tells each what the other one did.
	say := func(to *playing, what string) {
		t.Helper()
		require.Eventually(t, func() bool {
			status, _ := s.call(t, "messaging/publish", object{"topic": "session." + to.tokens.SessionID + ".move", "payload": object{"move": what}})
			return status == http.StatusOK
		}, patience, 50*time.Millisecond)
	}
	say(bob, "e4")
	require.Equal(t, "e4", bob.gets("move")["move"])
	say(ada, "e5")
	require.Equal(t, "e5", ada.gets("move")["move"])

	ada.may("/accounts/list", false)
	s.must(t, "accounts/set-roles", object{"accountId": ada.tokens.AccountID, "roles": []string{"admin", "user"}})
	ada.may("/accounts/list", true)
	require.NotEmpty(t, ada.calls("/accounts/list", object{})["accounts"])
	s.must(t, "accounts/set-roles", object{"accountId": ada.tokens.AccountID, "roles": []string{"user"}})
	ada.may("/accounts/list", false)

	if s.harm != nil {
		s.harm(t, ada.client.InstanceID())
		say(ada, "Nf3")
		require.Equal(t, "Nf3", ada.gets("move")["move"], "what is told while a client is away waits for it")
		say(bob, "Nc6")
		require.Equal(t, "Nc6", bob.gets("move")["move"])
		require.Len(t, bob.calls("/game-session/get", object{"gameSessionId": table})["players"], 2)
	}
	leave(t, s, ada, bob, table)
}

// leave has a player delete the account, of which nothing is left.
func leave(t *testing.T, s stage, ada, bob *playing, table any) {
	if s.traces != nil {
		require.NotEmpty(t, s.traces(t, ada.email), "the search finds what is there")
	}
	s.must(t, "accounts/delete", object{"accountId": ada.tokens.AccountID})
	select {
	case <-ada.client.Done():
		if err := ada.client.Err(); !errors.Is(err, client.ErrRefused) { // it was away then
			require.True(t, websocket.IsCloseError(err, connect.CloseEnded), "%v", err)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("the connection of a deleted account is still there")
	}
	require.Eventually(t, func() bool {
		status, _ := s.call(t, "permissions/capabilities/get", object{"sessionId": ada.tokens.SessionID})
		return status == http.StatusNotFound
	}, patience, 20*time.Millisecond)
	s.must(t, "accounts/erase", object{"accountId": ada.tokens.AccountID})
	s.ends(t, "account-deletion", ada.tokens.AccountID, "completed")
	for method, c := range map[string]struct {
		body object
		want int
	}{
		"auth/validate":     {object{"accessToken": ada.tokens.AccessToken}, http.StatusUnauthorized},
		"auth/refresh":      {object{"refreshToken": ada.tokens.RefreshToken}, http.StatusUnauthorized},
		"auth/login":        {object{"email": ada.email, "password": playersPassword}, http.StatusUnauthorized},
		"accounts/get":      {object{"accountId": ada.tokens.AccountID}, http.StatusNotFound},
		"accounts/by-email": {object{"email": ada.email}, http.StatusNotFound},
	} {
		status, answer := s.call(t, method, c.body)
		require.Equal(t, c.want, status, "%s: %v", method, answer)
	}
	_, err := client.Dial(t.Context(), client.Config{URLs: s.gateways[len(s.gateways)-1:], AccessToken: ada.tokens.AccessToken})
	require.Error(t, err, "no connection is to be had with a token of a deleted account")

	raw, err := json.Marshal(object{"gameSessionId": table})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // its seat is free
		var answer struct{ Players []struct{ SessionID string } }
		r, err := bob.client.Call(t.Context(), "POST", "/game-session/get", raw)
		return err == nil && r.Code == connect.CodeOK && json.Unmarshal(r.Body, &answer) == nil &&
			len(answer.Players) == 1 && answer.Players[0].SessionID == bob.tokens.SessionID
	}, patience, 50*time.Millisecond)
	for _, saga := range []string{"account-registration", "account-deletion"} {
		kept, err := json.Marshal(s.must(t, "sagas/get", object{"saga": saga, "key": ada.tokens.AccountID, "history": true}))
		require.NoError(t, err)
		require.NotContains(t, string(kept), ada.email)
	}
	if s.traces != nil {
		var found []string
		require.Eventually(t, func() bool { found = s.traces(t, ada.email); return len(found) == 0 }, patience, 100*time.Millisecond, "%v", &found)
	}
	say := s.must(t, "messaging/publish", object{"topic": "session." + bob.tokens.SessionID + ".move", "payload": object{"move": "I resign"}})
	require.Equal(t, true, say["success"])
	require.Equal(t, "I resign", bob.gets("move")["move"], "the other one plays on")
}
