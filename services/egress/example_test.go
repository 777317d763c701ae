package egress_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/services/egress"
)

func Example() {
	policy, err := egress.New(egress.Config{Networks: []string{"10.0.0.0/8"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	fmt.Println(policy.CheckURL(ctx, "http://10.1.2.3:8080/hook"))
	err = policy.CheckURL(ctx, "http://169.254.169.254/latest/meta-data")
	fmt.Println(errors.Is(err, egress.ErrNotAllowed))
	fmt.Println(policy.CheckURL(ctx, "http://user:secret@10.1.2.3/"))
	// Output:
	// <nil>
	// true
	// not a usable url: it must not hold a user or password
}
