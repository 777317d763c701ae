package problem_test

import (
	"fmt"
	"net/http/httptest"

	"github.com/bannou-mesh/bannou/services/problem"
)

func Example() {
	w := httptest.NewRecorder()
	problem.Write(w, problem.Invalid("options.priority", "is %d, and has to be 0 to 9", 12))
	fmt.Println(w.Code, w.Header().Get("Content-Type"))
	fmt.Print(w.Body)
	// Output:
	// 400 application/problem+json
	// {"type":"about:blank","title":"Bad Request","status":400,"detail":"member options.priority is 12, and has to be 0 to 9","code":"invalid_member","member":"options.priority"}
}
