package accounts_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/services/accounts"
)

func TestTheLifeOfAnAccount(t *testing.T) {
	n := start(t, accounts.Config{})
	made := n.must("/accounts/register", `{"email":"Ada@example.org","displayName":"Ada"}`)
	id := made["accountId"].(string)
	require.Equal(t, []any{"user"}, made["roles"])
	require.Equal(t, id, n.must("/accounts/by-email", `{"email":"ada@EXAMPLE.org"}`)["accountId"], "addresses that differ in case are one")

	n.must("/accounts/update", `{"accountId":"`+id+`","displayName":"Ada L."}`)
	n.must("/accounts/change-email", `{"accountId":"`+id+`","email":"ada@example.net"}`)
	changed := n.must("/accounts/set-roles", `{"accountId":"`+id+`","roles":["user","admin","user"]}`)
	require.Equal(t, []any{"admin", "user"}, changed["roles"])
	require.EqualValues(t, 4, changed["version"])
	require.Equal(t, changed, n.must("/accounts/get", `{"accountId":"`+id+`"}`))
	n.refused("/accounts/by-email", `{"email":"ada@example.org"}`, 404, "not_found", "email")

	require.Equal(t, object{"deleted": true}, n.must("/accounts/delete", `{"accountId":"`+id+`","reason":"asked for"}`))
	require.Equal(t, object{"deleted": false}, n.must("/accounts/delete", `{"accountId":"`+id+`"}`))
	n.refused("/accounts/get", `{"accountId":"`+id+`"}`, 404, "not_found", "accountId")
	n.refused("/accounts/by-email", `{"email":"ada@example.net"}`, 404, "not_found", "email")
	n.refused("/accounts/update", `{"accountId":"`+id+`","displayName":"x"}`, 404, "not_found", "accountId")

	heard := n.hears(5)
	require.Equal(t, "ada@example.net", heard[2].(*events.AccountUpdatedEvent).Email)
	require.Equal(t, []string{"roles"}, heard[3].(*events.AccountUpdatedEvent).ChangedFields)
	require.Equal(t, "asked for", heard[4].(*events.AccountDeletedEvent).Reason)
	require.Equal(t, id, heard[0].(*events.AccountCreatedEvent).AccountID)

	again := n.must("/accounts/register", `{"email":"ada@example.net"}`)
	require.NotEqual(t, id, again["accountId"], "the address was free")
}

func TestARegistrationMayBeRepeated(t *testing.T) {
	n := start(t, accounts.Config{})
	id := uuid.NewString()
	request := `{"accountId":"` + id + `","email":"ada@example.org"}`
	first := n.must("/accounts/register", request)
	require.Equal(t, first, n.must("/accounts/register", request))
	n.refused("/accounts/register", `{"accountId":"`+id+`","email":"bob@example.org"}`, 409, "conflict", "accountId")
	n.refused("/accounts/register", `{"email":"ADA@example.org"}`, 409, "conflict", "email")
}

func TestAChangeOnConditionOfAVersion(t *testing.T) {
	n := start(t, accounts.Config{})
	id := n.must("/accounts/register", `{}`)["accountId"].(string)
	n.must("/accounts/update", `{"accountId":"`+id+`","displayName":"a","version":1}`)
	n.refused("/accounts/update", `{"accountId":"`+id+`","displayName":"b","version":1}`, 409, "conflict", "version")
}

// Many take few addresses, change them and give them up, all at once: nobody has one that another has, and an address that
// nobody has can be taken.
func TestAnAddressHasOneHolder(t *testing.T) {
	n := start(t, accounts.Config{})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const workers, steps, addresses = 8, 12, 3
	var wait sync.WaitGroup
	var taken atomic.Int64
	for w := range workers {
		wait.Go(func() {
			chance := rand.New(rand.NewPCG(seed, uint64(w)))
			address := func() string { return fmt.Sprintf("a%d@example.org", chance.IntN(addresses)) }
			id := ""
			for range steps {
				switch chance.IntN(3) {
				case 0:
					if id == "" {
						if status, answer := n.post("/accounts/register", `{"email":"`+address()+`"}`); status == 200 {
							id = answer["accountId"].(string)
							taken.Add(1)
						}
					}
				case 1:
					if id != "" {
						n.post("/accounts/change-email", `{"accountId":"`+id+`","email":"`+address()+`"}`)
					}
				default:
					if id != "" {
						n.must("/accounts/delete", `{"accountId":"`+id+`"}`)
						id = ""
					}
				}
			}
		})
	}
	wait.Wait()
	require.Positive(t, taken.Load())

	holders := map[string]string{} // by what the accounts' own events say
	for e, err := range n.log.ReadCategory(t.Context(), "accounts.account", eventstore.ReadOptions{}) {
		require.NoError(t, err)
		status, answer := n.post("/accounts/get", `{"accountId":"`+e.Stream.ID+`"}`)
		if status != 200 {
			continue
		}
		email := strings.ToLower(answer["email"].(string))
		if other := holders[email]; other != "" {
			require.Equal(t, other, e.Stream.ID, "%s has two holders", email)
		}
		holders[email] = e.Stream.ID
	}
	for i := range addresses {
		email := fmt.Sprintf("a%d@example.org", i)
		if holder := holders[email]; holder != "" {
			require.Equal(t, holder, n.must("/accounts/by-email", `{"email":"`+email+`"}`)["accountId"])
			n.refused("/accounts/register", `{"email":"`+email+`"}`, 409, "conflict", "email")
		} else {
			n.must("/accounts/register", `{"email":"`+email+`"}`)
		}
	}
}

func TestAccountsAreListedPageByPage(t *testing.T) {
	n := start(t, accounts.Config{})
	for i := range 7 {
		n.must("/accounts/register", fmt.Sprintf(`{"email":"p%d@example.org","displayName":"Player %d","roles":["user"]}`, i, i))
	}
	admin := n.must("/accounts/register", `{"displayName":"Root","roles":["admin"]}`)["accountId"].(string)
	gone := n.must("/accounts/register", `{"displayName":"Player gone"}`)["accountId"].(string)
	list := func(body string) []any { return n.must("/accounts/list", body)["accounts"].([]any) }
	require.Eventually(t, func() bool { return len(list(`{}`)) == 9 }, 20*time.Second, time.Millisecond)
	n.must("/accounts/delete", `{"accountId":"`+gone+`"}`)
	require.Eventually(t, func() bool { return len(list(`{}`)) == 8 }, 20*time.Second, time.Millisecond, "a deleted account is not listed")

	found := map[string]bool{}
	for cursor := ""; ; {
		page := n.must("/accounts/list", fmt.Sprintf(`{"search":"PLAYER","pageSize":3,"cursor":%q}`, cursor))
		for _, a := range page["accounts"].([]any) {
			found[a.(object)["displayName"].(string)] = true
		}
		if page["next"] == nil {
			break
		}
		cursor = page["next"].(string)
	}
	require.Len(t, found, 7)
	require.Equal(t, admin, list(`{"role":"admin"}`)[0].(object)["accountId"])
	require.Len(t, list(`{"search":"p3@example"}`), 1)
	n.refused("/accounts/list", `{"cursor":"x"}`, 400, "invalid_member", "cursor")
}

func TestADeletedAccountIsErased(t *testing.T) {
	n := start(t, accounts.Config{})
	id := n.must("/accounts/register", `{"email":"ada@example.org"}`)["accountId"].(string)
	n.refused("/accounts/erase", `{"accountId":"`+id+`"}`, 409, "conflict", "accountId")
	n.must("/accounts/delete", `{"accountId":"`+id+`"}`)
	require.Equal(t, object{"erased": true}, n.must("/accounts/erase", `{"accountId":"`+id+`"}`))
	for e, err := range n.log.ReadStream(t.Context(), eventstore.StreamID{Category: "accounts.account", ID: id}, eventstore.ReadOptions{}) {
		require.NoError(t, err)
		require.NotContains(t, string(e.Data), "ada", "what its events say of the person cannot be read any more")
	}
	require.Equal(t, object{"erased": false}, n.must("/accounts/erase", `{"accountId":"`+id+`"}`))
}

// The list is a projection: it is made anew from the log beside the old one, which is read meanwhile, and nothing of who was erased comes back.
func TestTheListIsRebuilt(t *testing.T) {
	n := start(t, accounts.Config{})
	listed := func() (names []string) {
		for _, a := range n.must("/accounts/list", `{}`)["accounts"].([]any) {
			names = append(names, a.(object)["displayName"].(string))
		}
		slices.Sort(names)
		return names
	}
	ids := map[string]string{}
	for _, name := range []string{"Ada", "Ben", "Eve"} {
		ids[name] = n.must("/accounts/register", `{"displayName":"`+name+`","email":"`+name+`@example.org"}`)["accountId"].(string)
	}
	n.must("/accounts/delete", `{"accountId":"`+ids["Ben"]+`"}`)
	n.must("/accounts/erase", `{"accountId":"`+ids["Ben"]+`"}`)
	require.Eventually(t, func() bool { return slices.Equal(listed(), []string{"Ada", "Eve"}) }, 20*time.Second, time.Millisecond)

	set, err := projection.Open(t.Context(), n.log, projection.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close(context.Background())) }()
	_, err = set.Rebuild(t.Context(), accounts.Listing, false)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		require.Equal(t, []string{"Ada", "Eve"}, listed())
		live, err := set.Live(t.Context(), accounts.Listing)
		require.NoError(t, err)
		return live.Number == 2
	}, 20*time.Second, time.Millisecond)
	require.NoError(t, set.Drop(t.Context(), accounts.Listing, 1))
	require.Eventually(t, func() bool {
		statuses, err := set.List(t.Context(), accounts.Listing)
		require.NoError(t, err)
		return len(statuses) == 1
	}, 20*time.Second, time.Millisecond)
	require.Equal(t, []string{"Ada", "Eve"}, listed())
	n.must("/accounts/register", `{"displayName":"Zoe"}`)
	require.Eventually(t, func() bool { return slices.Equal(listed(), []string{"Ada", "Eve", "Zoe"}) }, 20*time.Second, time.Millisecond)
}
