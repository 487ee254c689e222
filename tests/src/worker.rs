//! Client processes that tests steer and kill.
