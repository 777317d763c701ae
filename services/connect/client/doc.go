// Package client is a player's side of the gateway: it connects a session, calls services, gets events, and comes back by itself when
// the connection is lost.
//
//	c, err := client.Dial(ctx, client.Config{URLs: []string{"http://127.0.0.1:3500"}, AccessToken: token})
//	defer c.Close()
//	answer, err := c.Call(ctx, "POST", "/game-session/list", []byte(`{}`))
//	for event := range c.Events() { … }
//
// Calls go as binary frames. An event is acknowledged when it was taken from the channel, and comes once: what the gateway sends again
// after a reconnection is told apart by its id. Where events were given up meanwhile, Config.Anew is called.
package client
