package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"time"
	"unsafe"
)

const (
	patience      = 30 * time.Second // for the answers that are still owed at the end
	unansweredMax = 1000
	waitingMax    = 1_000_000
)

// A connection has at most one request on its way.
type connection struct {
	fd      int
	out     []byte
	sent    int // so much of `out` is written
	in      []byte
	since   time.Duration // when its request was due
	busy    bool
	writing bool // the socket is watched for room
}

type load struct {
	spec    *spec
	address syscall.SockaddrInet4
	request *request
	source  source
	epoll   int
	byFd    map[int]*connection
	free    []*connection
	due     time.Duration   // of the next request, in an open loop
	waiting []time.Duration // when those were due for whom no connection was free
	random  *rand.Rand
	busy    int

	times                                []int32 // microseconds
	statuses                             map[int]int
	requests, events, stored, unanswered int
}

func newLoad(s *spec) (*load, error) {
	address, err := net.ResolveTCPAddr("tcp4", s.Address)
	if err != nil {
		return nil, err
	}
	l := &load{
		spec: s, request: newRequest(s), byFd: map[int]*connection{}, statuses: map[int]int{},
		source: source{users: max(1, s.Users), number: s.First, keys: s.Keys},
		random: rand.New(rand.NewPCG(1, 2)), times: make([]int32, 0, 1<<20),
		address: syscall.SockaddrInet4{Port: address.Port, Addr: [4]byte(address.IP.To4())},
	}
	if l.epoll, err = syscall.EpollCreate1(0); err != nil {
		return nil, err
	}
	for range s.Connections {
		c := &connection{out: slices.Clone(l.request.bytes), in: make([]byte, 0, 64*1024)}
		if err := l.connect(c); err != nil {
			return nil, err
		}
		l.free = append(l.free, c)
	}
	return l, nil
}

func (l *load) connect(c *connection) (err error) {
	if c.fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0); err != nil {
		return err
	}
	if err = syscall.Connect(c.fd, &l.address); err != nil {
		return fmt.Errorf("connect to %s: %w", l.spec.Address, err)
	}
	syscall.SetsockoptInt(c.fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	syscall.SetNonblock(c.fd, true)
	l.byFd[c.fd] = c
	c.busy, c.writing, c.in = false, false, c.in[:0]
	return l.watch(c, syscall.EPOLL_CTL_ADD, syscall.EPOLLIN)
}

func (l *load) watch(c *connection, how int, what uint32) error {
	return syscall.EpollCtl(l.epoll, how, c.fd, &syscall.EpollEvent{Events: what, Fd: int32(c.fd)})
}

func (l *load) run() error {
	began = time.Now()
	end := time.Duration(l.spec.Seconds * float64(time.Second))
	events := make([]syscall.EpollEvent, 256)
	for at := now(); at < end || l.busy > 0 || len(l.waiting) > 0; at = now() {
		if at > end+patience {
			l.unanswered += l.busy + len(l.waiting)
			return nil
		}
		if l.unanswered > unansweredMax || len(l.waiting) > waitingMax {
			return fmt.Errorf("the server does not keep up: %d waiting, %d unanswered", len(l.waiting), l.unanswered)
		}
		if err := l.start(at, end); err != nil {
			return err
		}
		ready, err := l.wait(events, end)
		if err != nil {
			return err
		}
		for _, event := range events[:ready] {
			if err := l.handle(l.byFd[int(event.Fd)], event.Events, end); err != nil {
				return err
			}
		}
	}
	return nil
}

// start sends what is due now.
func (l *load) start(at, end time.Duration) error {
	if l.spec.Rate > 0 {
		for ; l.due <= at && l.due < end; l.due += l.gap() {
			l.waiting = append(l.waiting, l.due)
		}
		for len(l.waiting) > 0 && len(l.free) > 0 && l.unanswered <= unansweredMax {
			since := l.waiting[0]
			l.waiting = l.waiting[1:]
			if err := l.send(l.take(), since); err != nil {
				return err
			}
		}
		return nil
	}
	for at < end && len(l.free) > 0 && l.unanswered <= unansweredMax {
		if err := l.send(l.take(), now()); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) gap() time.Duration {
	return time.Duration(l.random.ExpFloat64() / l.spec.Rate * float64(time.Second))
}

func (l *load) take() *connection {
	c := l.free[0]
	l.free = l.free[1:]
	return c
}

func (l *load) send(c *connection, since time.Duration) error {
	l.source.fill(l.request, c.out)
	c.since, c.sent, c.busy, c.in = since, 0, true, c.in[:0]
	l.busy++
	return l.write(c)
}

func (l *load) write(c *connection) error {
	written, err := syscall.Write(c.fd, c.out[c.sent:])
	if err != nil && err != syscall.EAGAIN {
		return l.lose(c)
	}
	c.sent += max(0, written)
	if unsent := c.sent < len(c.out); unsent != c.writing {
		c.writing = unsent
		what := uint32(syscall.EPOLLIN)
		if unsent {
			what |= syscall.EPOLLOUT
		}
		return l.watch(c, syscall.EPOLL_CTL_MOD, what)
	}
	return nil
}

func (l *load) handle(c *connection, what uint32, end time.Duration) error {
	if what&syscall.EPOLLOUT != 0 {
		if err := l.write(c); err != nil || what == syscall.EPOLLOUT {
			return err
		}
	}
	if len(c.in) == cap(c.in) {
		c.in = slices.Grow(c.in, cap(c.in))
	}
	read, err := syscall.Read(c.fd, c.in[len(c.in):cap(c.in)])
	if err == syscall.EAGAIN {
		return nil
	}
	if err != nil || read <= 0 {
		return l.lose(c)
	}
	c.in = c.in[:len(c.in)+read]
	if status, whole := parse(c.in); whole && c.busy {
		l.note(c, status, end)
	}
	return nil
}

func (l *load) note(c *connection, status int, end time.Duration) {
	at := now()
	l.statuses[status]++
	accepted := 0
	if slices.Contains(l.spec.Accepted, status) {
		accepted = l.spec.Batch
	}
	l.stored += accepted
	if at <= end {
		l.requests++
		l.events += accepted
	}
	l.times = append(l.times, int32(min(at-c.since, time.Hour/2)/time.Microsecond))
	l.busy--
	c.busy = false
	l.free = append(l.free, c)
}

// lose takes a new connection in place of one that the server has ended.
func (l *load) lose(c *connection) error {
	delete(l.byFd, c.fd)
	syscall.Close(c.fd)
	if c.busy {
		l.unanswered++
		l.busy--
		l.free = append(l.free, c)
	}
	return l.connect(c)
}

// wait returns how many connections have news, in an open loop no later than when the next request is due.
func (l *load) wait(events []syscall.EpollEvent, end time.Duration) (int, error) {
	timeout := 100 // ms
	if l.spec.Rate > 0 && l.due < end {
		timeout = 0
		l.sleep(l.due - now())
	}
	ready, err := syscall.EpollWait(l.epoll, events, timeout)
	if err == syscall.EINTR {
		return 0, nil
	}
	return ready, err
}

// sleep waits for news or for so long, whatever comes first: epoll_wait knows milliseconds only.
func (l *load) sleep(pause time.Duration) {
	poll := struct {
		fd              int32
		events, revents int16
	}{int32(l.epoll), 1, 0}
	limit := syscall.NsecToTimespec(int64(max(0, pause)))
	syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
}

func cpu() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
