package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestKillLosesNoAcknowledgedSave kills the embedded node without warning in the middle of a stream of saves, twenty
// times, and looks for every save that was acknowledged after each restart.
func TestKillLosesNoAcknowledgedSave(t *testing.T) {
	const kills, writers = 20, 8
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	folder, address := t.TempDir(), freeAddress(t)
	acknowledged := map[string]int{} // key to the last number acknowledged
	total := 0
	for kill := range kills {
		n := launch(t, address, "--data-dir", folder)
		n.waitReady(t)
		verify(t, n.url, acknowledged)

		var mu sync.Mutex
		var wg sync.WaitGroup
		enough := make(chan struct{})
		target, count := 50+random.IntN(400), 0
		for w := range writers {
			wg.Go(func() {
				for i := 0; ; i++ {
					key := fmt.Sprintf("save-%d-%d", w, i%25)
					if !save(n.url, key, kill*1_000_000+i) {
						return
					}
					mu.Lock()
					acknowledged[key] = kill*1_000_000 + i
					if count++; count == target {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		n.kill()
		wg.Wait()
		total += count
	}
	n := launch(t, address, "--data-dir", folder)
	n.waitReady(t)
	verify(t, n.url, acknowledged)
	t.Logf("%d kills, %d saves acknowledged, 0 lost", kills, total)
}

// save reports whether the node acknowledged it.
func save(base, key string, number int) bool {
	body := fmt.Sprintf(`{"storeName":"accounts","key":%q,"value":{"n":%d}}`, key, number)
	res, err := http.Post(base+"/state/save", "application/json", bytes.NewReader([]byte(body)))
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err == nil && res.StatusCode == http.StatusOK
}

// verify finds every acknowledged save, or a later one by the same writer whose answer was lost with the node.
func verify(t *testing.T, base string, acknowledged map[string]int) {
	t.Helper()
	for key, number := range acknowledged {
		status, answer := post(t, base+"/state/get", object{"storeName": "accounts", "key": key})
		require.Equal(t, http.StatusOK, status, "%s was acknowledged and is lost", key)
		got, err := answer["value"].(object)["n"].(json.Number).Int64()
		require.NoError(t, err)
		require.GreaterOrEqual(t, int(got), number, "%s went back to an older value", key)
	}
}
