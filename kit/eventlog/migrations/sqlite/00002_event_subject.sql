-- +goose Up

-- What happened to one subject, in order.
CREATE INDEX event_log_subject ON event_log (subject, seq);
