// A client that loads one HTTP server and costs little itself: one thread, one epoll loop.
//
// It reads a spec as JSON from standard input and prints what it saw as JSON. With `rate` 0 the loop is
// closed: every connection sends its next request once it has its answer. Otherwise it is open: requests
// are due at random moments (a Poisson process) whatever the server does, and each one's time counts from
// the moment it was due, so a server that stalls is charged for everybody who would have come meanwhile.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

type spec struct {
	Address       string   // host:port, an IPv4 address
	Path          string   //
	Headers       []string // "Name: value"
	Keys          []string // what replaces the key's mark, one after the other
	Before, After string   // what stands around the events of a body
	Event         string   // one event, with marks
	Batch         int      // events a request
	Users         uint64   // how many there are
	First         uint64   // the first event's number
	Connections   int      //
	Seconds       float64  // for so long requests are sent
	Rate          float64  // requests a second; 0 for a closed loop
	Accepted      []int    // the statuses that mean "stored"
}

type report struct {
	Requests   int            `json:"requests"`    // answered within the time
	Events     int            `json:"events"`      // accepted within the time
	Stored     int            `json:"stored"`      // accepted at all: what must be in the store
	Statuses   map[string]int `json:"statuses"`    // of all answers
	Unanswered int            `json:"unanswered"`  // connections that ended without an answer
	Seconds    float64        `json:"seconds"`     //
	CPUSeconds float64        `json:"cpu_seconds"` // our own
	P50        float64        `json:"p50_ms"`
	P99        float64        `json:"p99_ms"`
	P999       float64        `json:"p999_ms"`
	Max        float64        `json:"max_ms"`
}

func main() {
	runtime.LockOSThread()
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1) // Nothing is allocated a request but its time.
	var s spec
	if err := json.NewDecoder(os.Stdin).Decode(&s); err != nil {
		fail(err)
	}
	l, err := newLoad(&s)
	if err != nil {
		fail(err)
	}
	if err := l.run(); err != nil {
		fail(err)
	}
	json.NewEncoder(os.Stdout).Encode(l.report())
}

func (l *load) report() report {
	slices.Sort(l.times)
	at := func(share float64) float64 {
		if len(l.times) == 0 {
			return 0
		}
		return float64(l.times[min(len(l.times)-1, int(share*float64(len(l.times))))]) / 1000
	}
	statuses := map[string]int{}
	for status, count := range l.statuses {
		statuses[fmt.Sprint(status)] = count
	}
	return report{
		Requests: l.requests, Events: l.events, Stored: l.stored,
		Statuses: statuses, Unanswered: l.unanswered,
		Seconds: l.spec.Seconds, CPUSeconds: cpu().Seconds(),
		P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: at(1),
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "load:", err)
	os.Exit(1)
}

var began = time.Now()

func now() time.Duration { return time.Since(began) }
