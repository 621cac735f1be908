CREATE TABLE room (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    language TEXT NOT NULL,
    started_at DOUBLE PRECISION NOT NULL,
    ended_at DOUBLE PRECISION
);

CREATE INDEX room_by_name ON room (name, started_at);

CREATE TABLE participant (
    room_id TEXT NOT NULL REFERENCES room (id),
    participant TEXT NOT NULL,
    name TEXT NOT NULL,
    joined_at DOUBLE PRECISION NOT NULL,
    left_at DOUBLE PRECISION,
    PRIMARY KEY (room_id, participant)
);

CREATE TABLE segment (
    room_id TEXT NOT NULL REFERENCES room (id),
    seq BIGINT NOT NULL,
    segment TEXT NOT NULL,
    revision INTEGER NOT NULL,
    participant TEXT NOT NULL,
    name TEXT NOT NULL,
    language TEXT NOT NULL,
    start_s DOUBLE PRECISION NOT NULL,
    end_s DOUBLE PRECISION NOT NULL,
    spoken_at DOUBLE PRECISION NOT NULL,
    text TEXT NOT NULL,
    words JSON NOT NULL,
    PRIMARY KEY (room_id, seq)
);

CREATE TABLE gap (
    room_id TEXT NOT NULL REFERENCES room (id),
    seq BIGINT NOT NULL,
    participant TEXT NOT NULL,
    start_s DOUBLE PRECISION NOT NULL,
    end_s DOUBLE PRECISION NOT NULL,
    reason TEXT NOT NULL,
    happened_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (room_id, seq)
);
