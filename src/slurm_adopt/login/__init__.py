# SPDX-License-Identifier: Apache-2.0
"""One login, from the module's request to the answer. Runs in the one-shot helper and in the resident service alike.

helper          main() of the one-shot helper
decide          the loop: facts, decision, act, until there is a verdict
state, answer   what is known of the login; what the module is answered
facts, steps    the first facts; where the user's extern steps are found
adopt, ask_caller, await_start, await_step, hold_manager, finish_session   the acts, loaded when they are needed
adoption        processes into a step, and the proof
recent          what other logins have just found out
reply, decided  words for the user and the log; a login for the books
recorded        the facts as plain values, and back
session/        what a session gets from its job

May import: observe, system, wire, options, policy, model. The helper loads decide, state, answer, facts, steps, adopt,
adoption, recent and reply for every login: a careless import at the top of one of these costs each login milliseconds.
"""
