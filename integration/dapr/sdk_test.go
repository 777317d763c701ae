package dapr_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// said is what the program with Dapr's SDK sees on either side.
const said = `invoke {"heard":{"name":"Ada"}}
get {"n":1}
bulk [{"key":"a","data":{"n":1}},{"key":"b","data":"text"},{"key":"c"}]
after the transaction [{"n":2},""]
deleted ""
event {"id":7}
bulk events [[],[8,9]]
secret {"plain":"one"}
metadata "app"
`

// saidMore is what it sees of what daprd has not in its stable components.
const saidMore = `query [{"key":"p1","data":{"city":"Ulm"}}]
lock [{"success":true},{"success":false},2,0]
`

// Dapr's own SDK for JavaScript, with its server and its client, works on the facade as it does on daprd.
func TestJavaScriptSDK(t *testing.T) {
	sdk := installedSDK(t)
	for name, want := range map[string]string{"facade": said + saidMore, "dapr": said} {
		t.Run(name, func(t *testing.T) {
			// The app is the program's. Daprd waits for it, and it for daprd: they start together.
			_, appPort, err := net.SplitHostPort(freeAddress(t))
			require.NoError(t, err)
			ports := make(chan string, 1)
			program := make(chan string, 1)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			go func() { program <- runSDK(ctx, sdk, appPort, <-ports, name) }()
			if name == "facade" {
				a := newApp(t, "[]")
				a.elsewhere = "127.0.0.1:" + appPort
				s := newFacade(t, components(t), a)
				ports <- s.url[strings.LastIndex(s.url, ":")+1:]
			} else {
				number, err := strconv.Atoi(appPort)
				require.NoError(t, err)
				servers.NewDaprd(t, servers.DaprdOptions{
					AppPort: number, Resources: components(t), Begin: func(port, _ int) { ports <- strconv.Itoa(port) },
				})
			}
			require.Equal(t, want, <-program)
		})
	}
}

// runSDK returns what the program prints, its errors too.
func runSDK(ctx context.Context, folder, appPort, daprPort, name string) string {
	cmd := exec.CommandContext(ctx, "node", "story.mjs", appPort, daprPort, name)
	cmd.Dir = folder
	printed, err := cmd.CombinedOutput()
	if err != nil {
		return string(printed) + err.Error()
	}
	return string(printed)
}

// installedSDK is a folder with the program beside the SDK.
func installedSDK(t *testing.T) string {
	t.Helper()
	modules, err := filepath.Abs(filepath.Join("..", "..", ".bin", "dapr-sdk", "node_modules"))
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(modules, "@dapr", "dapr")); err != nil {
		servers.SkipAloud(t, "the test of Dapr's SDK for JavaScript was skipped, because the SDK is not here: 'make daprd' installs it where there are Node.js and npm")
	}
	folder := t.TempDir()
	for _, name := range []string{"package.json", "story.mjs"} {
		content, err := os.ReadFile(filepath.Join("testdata", "sdk", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), content, 0o600))
	}
	require.NoError(t, os.Symlink(modules, filepath.Join(folder, "node_modules")))
	return folder
}
