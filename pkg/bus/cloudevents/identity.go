package cloudevents

import "github.com/google/uuid"

// Identity is an event's id to handlers and inboxes. A UUID is one by itself; any other id is its source's own, and is made a UUID of both.
func Identity(source, id string) string {
	if _, err := uuid.Parse(id); err == nil && len(id) == 36 {
		return id
	}
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(source+"\x00"+id)).String()
}
