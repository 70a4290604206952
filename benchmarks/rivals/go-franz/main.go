// A rival: events over HTTP into Kafka with net/http and franz-go, as a Go team would write it.
//
// Environment: BROKERS (commas between them), TOPIC, PORT, API_KEY. It looks the key up by its SHA-256,
// checks the required fields, stores one JSON record an event and answers 202 once all in-sync replicas
// have it. franz-go's producer is idempotent and waits for all replicas by itself; the linger of ten
// milliseconds that it has by itself would hold up whoever waits for the acknowledgement.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

const bodyBytesMax = 10_000_000

type event struct {
	EventType      string          `json:"event_type"`
	Timestamp      time.Time       `json:"timestamp"`
	UserID         string          `json:"user_id,omitempty"`
	SessionID      string          `json:"session_id,omitempty"`
	IdempotencyKey string          `json:"idempotency_key,omitempty"`
	Properties     json.RawMessage `json:"properties"`
}

func (e *event) valid() bool {
	return e.EventType != "" && !e.Timestamp.IsZero() && len(e.Properties) > 0 && e.Properties[0] == '{'
}

type stored struct {
	EventID    string    `json:"event_id"`
	TenantID   string    `json:"tenant_id"`
	ProjectID  string    `json:"project_id"`
	ReceivedAt time.Time `json:"received_at"`
	*event
}

type tenant struct{ id, project string }

type service struct {
	tenants map[[sha256.Size]byte]tenant
	kafka   *kgo.Client
}

func main() {
	kafka, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv("BROKERS"), ",")...),
		kgo.DefaultProduceTopic(os.Getenv("TOPIC")),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	if err != nil {
		log.Fatal(err)
	}
	s := &service{
		tenants: map[[sha256.Size]byte]tenant{sha256.Sum256([]byte(os.Getenv("API_KEY"))): {"acme", "shop"}},
		kafka:   kafka,
	}
	http.HandleFunc("POST /v1/events", s.single)
	http.HandleFunc("POST /v1/events/batch", s.batch)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}

func (s *service) single(w http.ResponseWriter, r *http.Request) {
	t, known := s.tenant(r)
	if !known {
		fail(w, http.StatusUnauthorized, "API_KEY_INVALID")
		return
	}
	var e event
	if !read(w, r, &e) {
		return
	}
	if !e.valid() {
		fail(w, http.StatusUnprocessableEntity, "EVENT_INVALID")
		return
	}
	id, record := recordOf(&e, t, time.Now().UTC())
	if err := s.kafka.ProduceSync(context.Background(), record).FirstErr(); err != nil {
		fail(w, http.StatusServiceUnavailable, "NOT_STORED")
		return
	}
	answer(w, http.StatusAccepted, map[string]string{"status": "accepted", "event_id": id})
}

func (s *service) batch(w http.ResponseWriter, r *http.Request) {
	t, known := s.tenant(r)
	if !known {
		fail(w, http.StatusUnauthorized, "API_KEY_INVALID")
		return
	}
	var body struct {
		Events []event `json:"events"`
	}
	if !read(w, r, &body) {
		return
	}
	now := time.Now().UTC()
	records := make([]*kgo.Record, len(body.Events))
	for i := range body.Events {
		if !body.Events[i].valid() {
			fail(w, http.StatusUnprocessableEntity, "EVENT_INVALID")
			return
		}
		_, records[i] = recordOf(&body.Events[i], t, now)
	}
	if err := s.kafka.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		fail(w, http.StatusServiceUnavailable, "NOT_STORED")
		return
	}
	answer(w, http.StatusAccepted, map[string]any{"status": "accepted", "accepted": len(records), "failed": 0})
}

func (s *service) tenant(r *http.Request) (tenant, bool) {
	t, known := s.tenants[sha256.Sum256([]byte(r.Header.Get("X-CS-API-Key")))]
	return t, known
}

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
		return false
	}
	if json.Unmarshal(body, into) != nil {
		fail(w, http.StatusBadRequest, "MALFORMED_JSON")
		return false
	}
	return true
}

func recordOf(e *event, t tenant, now time.Time) (string, *kgo.Record) {
	id := uuid.Must(uuid.NewV7()).String()
	value, err := json.Marshal(stored{id, t.id, t.project, now, e})
	if err != nil {
		panic(err) // What was read can be written.
	}
	user := e.UserID
	if user == "" {
		user = id
	}
	return id, &kgo.Record{Key: []byte(t.id + ":" + user), Value: value}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, status int, code string) {
	answer(w, status, map[string]any{"error": map[string]string{"code": code}})
}
