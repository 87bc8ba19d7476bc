;; A health check for Redis in WebAssembly's own text: sends PING and expects PONG. The port is `port` of the group's [config].
;;
;; Each call gets a fresh memory, so nothing is ever freed here. Where things lie in it:
;;      0  the answer: a result<report, failure>
;;    128  what the imports answer
;;    256  texts
;;   4096  on: what Tagfall hands over, put there by cabi_realloc
(module
  (import "tagfall:hooks/config@0.1.0" "get" (func $get (param $pointer i32) (param $length i32) (param $answer i32)))
  (import "tagfall:hooks/probe@0.1.0" "tcp"
    (func $tcp (param $host i32) (param $host_length i32) (param $port i32) (param $send i32) (param $send_length i32)
      (param $until i32) (param $timeout_ms i32) (param $answer i32)))

  (memory (export "memory") 2)
  (data (i32.const 256) "/cfg/port")
  (data (i32.const 272) "127.0.0.1")
  (data (i32.const 288) "PING\r\n")
  (data (i32.const 304) "+PONG\r\n\00")
  (data (i32.const 320) "Redis answers PONG")
  (data (i32.const 352) "Redis answers something else")
  (data (i32.const 384) "no-port")
  (data (i32.const 400) "[config] needs `port`, where Redis listens")

  ;; How Tagfall gets room for what it hands over. It is bounded: more than the memory has is a trap, and the call's own loss.
  (global $free (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (memory.copy (local.get $at) (local.get $old) (local.get $old_size))
    (local.get $at))

  ;; A report: `health` is 0 ok, 1 warning, 2 critical, 3 unknown; there are no details.
  (func $report (param $health i32) (param $text i32) (param $length i32) (result i32)
    (i32.store8 (i32.const 4) (local.get $health))
    (i32.store (i32.const 8) (local.get $text))
    (i32.store (i32.const 12) (local.get $length))
    (i32.const 0))

  ;; A failure, which counts as `unknown`: the check could not do its work.
  (func $fail (param $code i32) (param $code_length i32) (param $text i32) (param $length i32) (result i32)
    (i32.store8 (i32.const 0) (i32.const 1))
    (i32.store (i32.const 4) (local.get $code))
    (i32.store (i32.const 8) (local.get $code_length))
    (i32.store (i32.const 12) (local.get $text))
    (i32.store (i32.const 16) (local.get $length))
    (i32.const 0))

  ;; The number that a text of digits is.
  (func $number (param $at i32) (param $length i32) (result i32)
    (local $end i32) (local $number i32)
    (local.set $end (i32.add (local.get $at) (local.get $length)))
    (block $done
      (loop $more
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $number
          (i32.add (i32.mul (local.get $number) (i32.const 10)) (i32.sub (i32.load8_u (local.get $at)) (i32.const 48))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $more)))
    (local.get $number))

  ;; The one function that Tagfall calls. The context lies at $context; this check needs nothing of it.
  (func (export "tagfall:hooks/health-check@0.1.0#check") (param $context i32) (result i32)
    (local $port i32)
    ;; An option<string>: whether there is one, where it is, how long it is.
    (call $get (i32.const 256) (i32.const 9) (i32.const 128))
    (if (i32.load8_u (i32.const 128))
      (then (local.set $port (call $number (i32.load (i32.const 132)) (i32.load (i32.const 136))))))
    (if (i32.eqz (local.get $port))
      (then (return (call $fail (i32.const 384) (i32.const 7) (i32.const 400) (i32.const 42)))))
    ;; A result<list<u8>, probe-error>: whether it is an error, then the list, or two texts.
    (call $tcp (i32.const 272) (i32.const 9) (local.get $port) (i32.const 288) (i32.const 6)
      (i32.const 7) (i32.const 0) (i32.const 128))
    ;; `denied` says which line group.toml needs; its message is passed on as it is.
    (if (i32.load8_u (i32.const 128))
      (then (return (call $report (i32.const 2) (i32.load (i32.const 140)) (i32.load (i32.const 144))))))
    ;; Seven bytes are compared as eight, the last one cleared.
    (if (i32.eq (i32.load (i32.const 136)) (i32.const 7))
      (then
        (i32.store8 offset=7 (i32.load (i32.const 132)) (i32.const 0))
        (if (i64.eq (i64.load (i32.load (i32.const 132))) (i64.load (i32.const 304)))
          (then (return (call $report (i32.const 0) (i32.const 320) (i32.const 18)))))))
    (call $report (i32.const 2) (i32.const 352) (i32.const 28))))
