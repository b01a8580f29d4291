#!/usr/bin/env python3
"""Chats, pays and reads a history from Python, with stubs made from proto/.

The stubs are made anew at each run, in a temporary directory: the contracts in
the repository are the only source. Prints one JSON object a line.

    client.py --server 127.0.0.1:7443 --ca simpul-data/dev/ca.pem \
        --token "$(simpul token --as alice)" chat lobby --send halo --count 1
"""

import argparse
import importlib
import json
import pathlib
import queue
import sys
import tempfile
import uuid

import grpc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
AREAS = ("chat", "payment", "transaction")

# The exit codes of the `simpul` command, by class.
DONE, REFUSED, USAGE, UNAVAILABLE, UNKNOWN, PERMISSION = 0, 1, 64, 69, 75, 77
EXITS = {
    grpc.StatusCode.INVALID_ARGUMENT: USAGE,
    grpc.StatusCode.NOT_FOUND: REFUSED,
    grpc.StatusCode.ALREADY_EXISTS: REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: REFUSED,
    grpc.StatusCode.OUT_OF_RANGE: REFUSED,
    grpc.StatusCode.DEADLINE_EXCEEDED: UNKNOWN,
    grpc.StatusCode.UNAUTHENTICATED: PERMISSION,
    grpc.StatusCode.PERMISSION_DENIED: PERMISSION,
}


def make_stubs(out):
    """Compiles every contract into `out` and imports what is needed."""
    from grpc_tools import protoc

    well_known = str(importlib.import_module("importlib.resources").files("grpc_tools") / "_proto")
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}"]
    arguments += [f"--python_out={out}", f"--grpc_python_out={out}", *files]
    if protoc.main(arguments) != 0:
        raise SystemExit("the contracts do not compile")
    sys.path.insert(0, out)
    stubs = {}
    for area in AREAS:
        base = f"simpul.{area}.v1.{area}_pb2"
        stubs[area] = (importlib.import_module(base), importlib.import_module(base + "_grpc"))
    return stubs


def show(**fields):
    print(json.dumps(fields, sort_keys=True), flush=True)


def token_call(token):
    """Call credentials: the token goes only over TLS."""
    return grpc.access_token_call_credentials(token)


def connect(arguments):
    ca = pathlib.Path(arguments.ca).read_bytes()
    credentials = grpc.ssl_channel_credentials(ca)
    if arguments.token:
        credentials = grpc.composite_channel_credentials(credentials, token_call(arguments.token))
    options = []
    if arguments.server_name:
        options.append(("grpc.ssl_target_name_override", arguments.server_name))
    return grpc.secure_channel(arguments.server, credentials, options)


def chat(stubs, channel, arguments):
    """Joins, sends, and reads until everything sent is acknowledged and the
    wanted number of messages was shown."""
    pb, services = stubs["chat"]
    frames = queue.Queue()

    def outgoing():
        while (frame := frames.get()) is not None:
            yield frame

    join = pb.Join(room_id=arguments.room)
    if arguments.after is not None:
        join.cursor = arguments.after
    elif arguments.earliest:
        join.earliest = True
    else:
        join.latest = True
    frames.put(pb.ChatRequest(join=join))
    waiting = {}
    left = arguments.count
    exit_code = DONE
    call = services.ChatServiceStub(channel).Chat(outgoing(), timeout=arguments.timeout)
    for response in call:
        frame = response.WhichOneof("frame")
        if frame == "joined":
            show(type="joined", room_id=response.joined.room_id, head=response.joined.head)
            for body in arguments.send:
                key = str(uuid.uuid4())
                waiting[key] = body
                send = pb.Send(room_id=arguments.room, client_message_id=key, body=body)
                frames.put(pb.ChatRequest(send=send))
        elif frame == "sent":
            waiting.pop(response.sent.client_message_id, None)
            show(type="sent", seq=response.sent.seq)
        elif frame == "message" and response.message.kind == pb.MESSAGE_KIND_TEXT:
            if left > 0:
                left -= 1
                message = response.message
                show(type="message", seq=message.seq, sender=message.sender, body=message.body)
        elif frame == "failed":
            if not response.failed.client_message_id:
                raise SystemExit(fail(response.failed.code, response.failed.message))
            waiting.pop(response.failed.client_message_id, None)
            exit_code = fail(response.failed.code, response.failed.message)
        if frame != "notice" and not waiting and left == 0:
            break
    frames.put(None)
    call.cancel()
    return exit_code


def pay(stubs, channel, arguments):
    pb, services = stubs["payment"]
    request = pb.ProcessPaymentRequest(
        idempotency_key=arguments.key or str(uuid.uuid4()),
        payee=arguments.to,
        payment_method=arguments.method,
    )
    request.amount.currency = arguments.currency
    request.amount.minor_units = arguments.minor_units
    stub = services.PaymentServiceStub(channel)
    payment = stub.ProcessPayment(request, timeout=arguments.timeout).payment
    status = pb.PaymentStatus.Name(payment.status).removeprefix("PAYMENT_STATUS_")
    show(type="payment", payment_id=payment.payment_id, status=status, payee=payment.payee)
    if payment.outcome_unknown:
        return UNKNOWN
    if status in ("SUCCEEDED", "AUTHORIZED"):
        return DONE
    return REFUSED if status in ("FAILED", "CANCELED", "EXPIRED") else UNKNOWN


def history(stubs, channel, arguments):
    pb, services = stubs["transaction"]
    request = pb.GetTransactionHistoryRequest(
        after_position=arguments.after or 0, follow=arguments.follow, limit=arguments.limit
    )
    stub = services.TransactionServiceStub(channel)
    timeout = None if arguments.follow else arguments.timeout
    for response in stub.GetTransactionHistory(request, timeout=timeout):
        entry = response.transaction
        kind = pb.TransactionKind.Name(entry.kind).removeprefix("TRANSACTION_KIND_")
        show(
            type="transaction",
            position=entry.position,
            kind=kind,
            currency=entry.amount.currency,
            minor_units=entry.amount.minor_units,
            counterparty=entry.counterparty,
            payment_id=entry.payment_id,
        )
    return DONE


def fail(code, message):
    by_number = {status.value[0]: status for status in grpc.StatusCode}
    status = by_number.get(code, grpc.StatusCode.UNKNOWN)
    print(f"error: {status.name}: {message}", file=sys.stderr)
    return EXITS.get(status, UNAVAILABLE)


def arguments_of(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, help="HOST:PORT")
    parser.add_argument("--ca", required=True, help="PEM file of the certificate authorities")
    parser.add_argument("--token", help="a bearer token: simpul token --as NAME")
    parser.add_argument("--server-name", help="the name in the node's certificate")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds")
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("chat", help="send to a room and read it")
    one.add_argument("room")
    one.add_argument("--send", action="append", default=[], metavar="BODY")
    one.add_argument("--count", type=int, default=0, help="show so many messages")
    one.add_argument("--earliest", action="store_true", help="read from the beginning")
    one.add_argument("--after", type=int, help="read after this seq")
    one.set_defaults(run=chat)

    one = commands.add_parser("pay", help="pay somebody")
    one.add_argument("--to", required=True)
    one.add_argument("--currency", default="IDR")
    one.add_argument("--minor-units", type=int, required=True)
    one.add_argument("--method", required=True)
    one.add_argument("--key")
    one.set_defaults(run=pay)

    one = commands.add_parser("history", help="show the caller's transactions")
    one.add_argument("--after", type=int)
    one.add_argument("--follow", action="store_true")
    one.add_argument("--limit", type=int, default=0)
    one.set_defaults(run=history)
    return parser.parse_args(argv)


def main(argv):
    arguments = arguments_of(argv)
    with tempfile.TemporaryDirectory() as out:
        stubs = make_stubs(out)
        with connect(arguments) as channel:
            try:
                return arguments.run(stubs, channel, arguments)
            except grpc.RpcError as error:
                return fail(error.code().value[0], error.details())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
