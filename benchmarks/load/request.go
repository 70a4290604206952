package main

import (
	"bytes"
	"fmt"
	"strings"
)

// In a spec, a run of these marks is overwritten in every request: by a number that never comes twice, by
// the number of a user, and by an API key. What replaces them is as long as they are.
const (
	numberMark = '\x01'
	userMark   = '\x02'
	keyMark    = '\x03'
)

type field struct{ from, to int }

// A request is the bytes of one request and the places in them that change from one to the next.
type request struct {
	bytes                []byte
	numbers, users, keys []field
}

func newRequest(s *spec) *request {
	events := make([]string, s.Batch)
	for i := range events {
		events[i] = s.Event
	}
	body := s.Before + strings.Join(events, ",") + s.After
	headers := strings.Join(s.Headers, "\r\n")
	whole := []byte(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Length: %d\r\n\r\n%s",
		s.Path, s.Address, headers, len(body), body))
	return &request{
		bytes:   whole,
		numbers: fields(whole, numberMark),
		users:   fields(whole, userMark),
		keys:    fields(whole, keyMark),
	}
}

func fields(text []byte, mark byte) (found []field) {
	for at := 0; ; {
		i := bytes.IndexByte(text[at:], mark)
		if i < 0 {
			return found
		}
		from := at + i
		for at = from; at < len(text) && text[at] == mark; at++ {
		}
		found = append(found, field{from, at})
	}
}

// A source hands out what makes one event differ from another.
type source struct {
	users, number uint64
	keys          []string
	requests      int
}

// fill makes the request in `into` one that was never sent.
func (s *source) fill(r *request, into []byte) {
	for i, place := range r.numbers {
		if i < len(r.users) { // One user an event, scattered over all of them.
			user := r.users[i]
			digits(into[user.from:user.to], s.number*2654435761%s.users)
		}
		digits(into[place.from:place.to], s.number)
		s.number++
	}
	for _, place := range r.keys {
		copy(into[place.from:place.to], s.keys[s.requests%len(s.keys)])
	}
	s.requests++
}

func digits(into []byte, number uint64) {
	for i := len(into) - 1; i >= 0; i-- {
		into[i] = byte('0' + number%10)
		number /= 10
	}
}
